#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "protocol/plan.h"
#include "protocol/view.h"

namespace isthmus::coordinator {

// What the run's files say about a committed step; in the log, so that no line is lost with the coordinator.
struct StepFigures {
  double loss = 0;  // mean over training tokens, nats
  std::uint64_t tokens = 0;
  std::optional<double> validation_loss;
  double grad_norm = 0;
  std::uint32_t replayed = 0;  // (stage, microbatch) that were done and had to be done again
  friend bool operator==(const StepFigures&, const StepFigures&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("loss", self.loss);
    visit("tokens", self.tokens);
    visit("validation_loss", self.validation_loss);
    visit("grad_norm", self.grad_norm);
    visit("replayed", self.replayed);
  }
};

// The records of the coordinator's log. Each is written and synced before anything that follows from it is sent, as a
// JSON object: `kName` under "record", and its fields.
struct InitRecord {
  static constexpr std::string_view kName = "init";
  std::uint64_t version = 0;  // weights the run starts from; step version + 1 begins
  friend bool operator==(const InitRecord&, const InitRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("version", self.version);
  }
};
struct AdmitRecord {
  static constexpr std::string_view kName = "admit";
  protocol::Member member;
  std::uint64_t version = 0;
  friend bool operator==(const AdmitRecord&, const AdmitRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit.flat(self.member);
    visit("version", self.version);
  }
};
struct ExpelRecord {
  static constexpr std::string_view kName = "expel";
  SessionId session;
  std::string reason;
  friend bool operator==(const ExpelRecord&, const ExpelRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("session", self.session);
    visit("reason", self.reason, protocol::Most::kText);
  }
};
struct CommitRecord {
  static constexpr std::string_view kName = "commit";
  protocol::Commit commit;
  // Microbatches of the next step are dealt to the head's replicas in these proportions; absent ones count as the
  // greatest.
  std::map<SessionId, std::uint32_t> head_share;
  std::vector<StageId> absent;  // what the next step goes without
  StepFigures figures;
  std::string reason;  // why it is not applied, for people; empty: it is, or has nothing to train
  friend bool operator==(const CommitRecord&, const CommitRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit.flat(self.commit);
    visit("next_without", self.absent, protocol::Most::kStages);
    visit("head_share", self.head_share, protocol::Most::kMembers);
    visit.flat(self.figures);
    visit("reason", self.reason, protocol::Most::kText);
  }
};
struct CheckpointRecord {
  static constexpr std::string_view kName = "checkpoint";
  StageId stage;
  std::uint64_t version = 0;
  friend bool operator==(const CheckpointRecord&, const CheckpointRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("stage", self.stage);
    visit("version", self.version);
  }
};
// Steps first … last; none by default.
struct StepRange {
  StepId first{1};
  StepId last;
  bool empty() const { return last < first; }
  bool contains(StepId step) const { return first <= step && step <= last; }
  friend bool operator==(const StepRange&, const StepRange&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("first", self.first);
    visit("last", self.last);
  }
};
// Every stage goes back to this version: a stage was lost that checkpoint and journals cannot restore, or too many
// steps in a row were bad. Then what may have led to them is left out when it comes again: those steps are skipped.
struct RollbackRecord {
  static constexpr std::string_view kName = "rollback";
  std::uint64_t version = 0;
  std::string reason;
  StepRange left_out;
  friend bool operator==(const RollbackRecord&, const RollbackRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("version", self.version);
    visit("reason", self.reason, protocol::Most::kText);
    visit("left_out", self.left_out);
  }
};
// The step begins again without these stages: what was summed on the full path fits no gradient of a shorter one.
struct AttemptRecord {
  static constexpr std::string_view kName = "attempt";
  std::vector<StageId> absent;
  friend bool operator==(const AttemptRecord&, const AttemptRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("without", self.absent, protocol::Most::kStages);
  }
};
// A worker leaves its stage for a poorer one: its session counts for nothing any more, and its peer serves there from
// now on.
struct MoveRecord {
  static constexpr std::string_view kName = "move";
  PeerId peer;
  protocol::Place to;
  std::string reason;
  friend bool operator==(const MoveRecord&, const MoveRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("peer", self.peer);
    visit.flat(self.to);
    visit("reason", self.reason, protocol::Most::kText);
  }
};
// Microbatches that a head returned without having begun them go to these heads.
struct DealRecord {
  static constexpr std::string_view kName = "deal";
  SessionId from;
  std::map<MicrobatchId, SessionId> to;
  friend bool operator==(const DealRecord&, const DealRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("from", self.from);
    visit("to", self.to, protocol::Most::kMicrobatches);
  }
};
// Whoever shows this key may enrol.
struct InviteRecord {
  static constexpr std::string_view kName = "invite";
  protocol::PublicKey key{};    // CURVE, the public half of the invite's seed
  std::uint32_t uses = 1;       // identities that may enrol with it; 0: any number
  std::uint64_t expires_s = 0;  // seconds since 1970; 0: never
  std::optional<StageId> stage;
  bool trusted = false;  // whoever enrols with it may serve any stage (scheduler/coordinator/trust.h)
  friend bool operator==(const InviteRecord&, const InviteRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("key", self.key);
    visit("uses", self.uses);
    visit("expires_s", self.expires_s);
    visit("stage", self.stage);
    visit("trusted", self.trusted);
  }
};
// Nobody enrols with this invite any more; who has, stays.
struct WithdrawRecord {
  static constexpr std::string_view kName = "withdraw";
  protocol::PublicKey key{};
  friend bool operator==(const WithdrawRecord&, const WithdrawRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("key", self.key);
  }
};
// Somebody may take part from now on: peers are numbered from 1 in this order, and no number comes again. Whoever has
// no seat yet waits for one.
struct EnrolRecord {
  static constexpr std::string_view kName = "enrol";
  PeerId peer;
  protocol::PublicKey identity{};  // Ed25519
  protocol::PublicKey key{};       // CURVE
  std::string name;                // for people
  std::optional<StageId> wish;     // the stage that its invite names, or that it would rather serve
  std::optional<protocol::PublicKey> invite;
  friend bool operator==(const EnrolRecord&, const EnrolRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("peer", self.peer);
    visit("identity", self.identity);
    visit("key", self.key);
    visit("name", self.name, protocol::Most::kNote);
    visit("wish", self.wish);
    visit("invite", self.invite);
  }
};
// A peer that waited serves here from now on, until it is moved.
struct SeatRecord {
  static constexpr std::string_view kName = "seat";
  PeerId peer;
  StageId stage;
  ReplicaId replica;
  friend bool operator==(const SeatRecord&, const SeatRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("peer", self.peer);
    visit("stage", self.stage);
    visit("replica", self.replica);
  }
};
// A peer that is no member gives its seat up and waits behind everybody else.
struct UnseatRecord {
  static constexpr std::string_view kName = "unseat";
  PeerId peer;
  std::string reason;
  friend bool operator==(const UnseatRecord&, const UnseatRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("peer", self.peer);
    visit("reason", self.reason, protocol::Most::kText);
  }
};
// A peer that is no member takes no part any more. Its identity may enrol again, as another peer, unless it is banned.
struct RevokeRecord {
  static constexpr std::string_view kName = "revoke";
  PeerId peer;
  std::string reason;
  bool ban = false;
  friend bool operator==(const RevokeRecord&, const RevokeRecord&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("peer", self.peer);
    visit("reason", self.reason, protocol::Most::kText);
    visit("ban", self.ban);
  }
};
using LogRecord = std::variant<InitRecord, AdmitRecord, ExpelRecord, CommitRecord, CheckpointRecord, RollbackRecord,
                               AttemptRecord, MoveRecord, DealRecord, InviteRecord, WithdrawRecord, EnrolRecord,
                               SeatRecord, UnseatRecord, RevokeRecord>;

// Whether the record has an epoch of its own: one that changes members or the step. The others would only void
// combinations that are under way.
bool is_decision(const LogRecord& record);

// An invite, and what became of it.
struct Invite {
  std::uint32_t uses = 0, used = 0;
  std::uint64_t expires_s = 0;
  std::optional<StageId> stage;
  bool withdrawn = false;
  bool trusted = false;
  friend bool operator==(const Invite&, const Invite&) = default;
};

// Somebody that was enrolled.
struct Peer {
  protocol::PublicKey identity{};
  protocol::PublicKey key{};
  std::string name;
  std::optional<StageId> wish;
  std::optional<protocol::PublicKey> invite;
  std::optional<protocol::Place> seat;  // as it was given; `Decisions::moved` says where it serves now, if elsewhere
  bool revoked = false;
  bool banned = false;
  std::string reason;  // of that
  bool trusted = false;
  friend bool operator==(const Peer&, const Peer&) = default;
};

// The members of some stages, or how they changed after an epoch.
struct Membership {
  EpochId since;  // 0: `joined` are all of them
  std::vector<protocol::Member> joined;
  std::vector<SessionId> left;
};

// What the log says: a pure function of its records. Everything else the coordinator knows returns in Reports.
class Decisions {
 public:
  explicit Decisions(const protocol::Plan& plan);

  void apply(const LogRecord& record);

  EpochId epoch;
  StepId step;  // 0 until Init
  // Never reset, so that (step, attempt) names one try of one step, also after a rollback.
  std::uint32_t attempt = 0;
  std::vector<std::uint64_t> rollbacks;      // the versions the run went back to, oldest first
  std::vector<protocol::Member> live;        // by (stage, replica)
  std::vector<SessionId> head_owner;         // per microbatch
  std::vector<bool> head_again;              // per microbatch
  std::map<SessionId, EpochId> dealt_again;  // when what a head had returned in this step was dealt again
  std::vector<StageId> absent;               // stages that the running step goes without
  std::vector<std::uint32_t> steps_without;  // per stage: steps that went without it since somebody last served it
  std::optional<protocol::Commit> last_commit;
  std::map<PeerId, SessionId> last_session;
  std::map<PeerId, Peer> peers;  // everybody who was ever enrolled
  std::map<protocol::PublicKey, Invite> invites;
  std::map<protocol::PublicKey, std::set<StageId>> served;  // by identity: the stages it ever had a seat at
  std::vector<PeerId> waiting;                              // for a seat, who came first before the others
  std::map<PeerId, protocol::Place> moved;                  // peers that serve elsewhere than where they were seated
  std::set<SessionId> used_sessions;                        // every session ever admitted
  std::vector<std::uint64_t> checkpointed;                  // per stage
  // The newest version whose checkpoint every stage has written; 0: none is known of.
  std::uint64_t whole = 0;
  // The newest version that all stages had on their disks before the newest one that they all have; 0: none is known
  // of.
  std::uint64_t checkpointed_before = 0;
  // What a stage restored from its checkpoint has to repeat; reaches back to the oldest of `checkpointed`.
  std::vector<protocol::Commit> commits;

  const protocol::Member* find(SessionId session) const;
  bool is_live(SessionId session) const { return standings_.contains(session); }
  const protocol::Member* live_of(PeerId peer) const;
  // Where a peer serves; nothing: it has no seat.
  std::optional<protocol::Place> place_of(PeerId peer) const;
  // Live members of the stages first … last, in order.
  std::span<const protocol::Member> members(StageId first, StageId last) const;
  std::span<const protocol::Member> members(StageId stage) const { return members(stage, stage); }
  // For somebody who knows them as of epoch `known`; 0: nothing.
  Membership membership(StageId first, StageId last, EpochId known) const;
  bool stage_is_empty(StageId stage) const;
  bool is_absent(StageId stage) const;
  // The newest version that all stages have on their disks.
  std::uint64_t checkpointed_by_all() const;

 private:
  // Where a live member stands in `live`.
  struct Standing {
    StageId stage;
    ReplicaId replica;
    EpochId since;  // admitted
  };
  struct Departure {
    EpochId epoch;
    SessionId session;
  };
  // What happened to a stage's membership lately.
  struct History {
    EpochId changed;
    EpochId forgotten;  // nothing is known of what was before
    std::deque<Departure> departures;
  };
  void written(const CheckpointRecord& record);
  void add(const protocol::Member& member);
  void remove(SessionId session);
  void remove_all();
  void leave_seat(PeerId peer);
  void begin_step(StepId next, std::vector<StageId> without);
  void deal_anew();
  // What the session did for the running step counts for nothing.
  void forget(SessionId session);
  // Gives every microbatch without an owner to a live head member, in turn, as far as it goes to the one that had it in
  // the step before.
  void deal_heads();
  std::map<SessionId, std::uint32_t> head_share_;
  std::vector<SessionId> dealt_before_;  // head_owner of the step, or attempt, before
  std::unordered_map<SessionId, Standing> standings_;
  std::vector<History> history_;                  // per stage
  std::vector<std::set<std::uint64_t>> written_;  // per stage: checkpoints from `whole` on

  protocol::Plan plan_;
};

}  // namespace isthmus::coordinator
