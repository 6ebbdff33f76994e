#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "scheduler/plan.h"
#include "scheduler/view.h"

namespace isthmus {

// What the run's files say about a committed step; in the log, so that no line is lost with the coordinator.
struct StepFigures {
  double loss = 0;  // mean over training tokens, nats
  std::uint64_t tokens = 0;
  std::optional<double> validation_loss;
  double grad_norm = 0;
  std::uint32_t replayed = 0;  // (stage, microbatch) that were done and had to be done again
  friend bool operator==(const StepFigures&, const StepFigures&) = default;
};

// The records of the coordinator's log. Each is written and synced before anything that follows from it is sent.
struct InitRecord {
  std::uint64_t version = 0;  // weights the run starts from; step version + 1 begins
  friend bool operator==(const InitRecord&, const InitRecord&) = default;
};
struct AdmitRecord {
  Member member;
  std::uint64_t version = 0;
  friend bool operator==(const AdmitRecord&, const AdmitRecord&) = default;
};
struct ExpelRecord {
  SessionId session;
  std::string reason;
  friend bool operator==(const ExpelRecord&, const ExpelRecord&) = default;
};
struct CommitRecord {
  Commit commit;
  // Microbatches of the next step are dealt to the head's replicas in these proportions; absent ones count as the greatest.
  std::map<SessionId, std::uint32_t> head_share;
  std::vector<StageId> absent;  // what the next step goes without
  StepFigures figures;
  std::string reason;  // why it is not applied, for people; empty: it is, or has nothing to train
  friend bool operator==(const CommitRecord&, const CommitRecord&) = default;
};
struct CheckpointRecord {
  StageId stage;
  std::uint64_t version = 0;
  friend bool operator==(const CheckpointRecord&, const CheckpointRecord&) = default;
};
// Steps first … last; none by default.
struct StepRange {
  StepId first{1};
  StepId last;
  bool empty() const { return last < first; }
  bool contains(StepId step) const { return first <= step && step <= last; }
  friend bool operator==(const StepRange&, const StepRange&) = default;
};
// Every stage goes back to this version: a stage was lost that checkpoint and journals cannot restore, or too many steps in a
// row were bad. Then what may have led to them is left out when it comes again: those steps are skipped.
struct RollbackRecord {
  std::uint64_t version = 0;
  std::string reason;
  StepRange left_out;
  friend bool operator==(const RollbackRecord&, const RollbackRecord&) = default;
};
// The step begins again without these stages: what was summed on the full path fits no gradient of a shorter one.
struct AttemptRecord {
  std::vector<StageId> absent;
  friend bool operator==(const AttemptRecord&, const AttemptRecord&) = default;
};
// A worker leaves its stage for a poorer one: its session counts for nothing any more, and its peer serves there from now on.
struct MoveRecord {
  PeerId peer;
  Place to;
  std::string reason;
  friend bool operator==(const MoveRecord&, const MoveRecord&) = default;
};
// Microbatches that a head returned without having begun them go to these heads.
struct DealRecord {
  SessionId from;
  std::map<MicrobatchId, SessionId> to;
  friend bool operator==(const DealRecord&, const DealRecord&) = default;
};
using LogRecord = std::variant<InitRecord, AdmitRecord, ExpelRecord, CommitRecord, CheckpointRecord, RollbackRecord, AttemptRecord, MoveRecord,
                               DealRecord>;

// The members of some stages, or how they changed after an epoch.
struct Membership {
  EpochId since;  // 0: `joined` are all of them
  std::vector<Member> joined;
  std::vector<SessionId> left;
};

// What the log says: a pure function of its records. Everything else the coordinator knows returns in Reports.
// Checkpoint records do not count as decisions: a new epoch would void combinations that are under way.
class Decisions {
 public:
  explicit Decisions(const Plan& plan);

  void apply(const LogRecord& record);

  EpochId epoch;
  StepId step;  // 0 until Init
  // Never reset, so that (step, attempt) names one try of one step, also after a rollback.
  std::uint32_t attempt = 0;
  std::vector<std::uint64_t> rollbacks;  // the versions the run went back to, oldest first
  std::vector<Member> live;             // by (stage, replica)
  std::vector<SessionId> head_owner;    // per microbatch
  std::vector<bool> head_again;         // per microbatch
  std::map<SessionId, EpochId> dealt_again;  // when what a head had returned in this step was dealt again
  std::vector<StageId> absent;          // stages that the running step goes without
  std::vector<std::uint32_t> steps_without;  // per stage: steps that went without it since somebody last served it
  std::optional<Commit> last_commit;
  std::map<PeerId, SessionId> last_session;
  std::map<PeerId, Place> moved;        // peers that serve elsewhere than the roster says
  std::set<SessionId> used_sessions;    // every session ever admitted
  std::vector<std::uint64_t> checkpointed;  // per stage
  // The newest version that all stages had on their disks before the newest one that they all have; 0: none is known of.
  std::uint64_t checkpointed_before = 0;
  // What a stage restored from its checkpoint has to repeat; reaches back to the oldest of `checkpointed`.
  std::vector<Commit> commits;

  const Member* find(SessionId session) const;
  bool is_live(SessionId session) const { return standings_.contains(session); }
  const Member* live_of(PeerId peer) const;
  // Live members of the stages first … last, in order.
  std::span<const Member> members(StageId first, StageId last) const;
  std::span<const Member> members(StageId stage) const { return members(stage, stage); }
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
  void add(const Member& member);
  void remove(SessionId session);
  void remove_all();
  void begin_step(StepId next, std::vector<StageId> without);
  void deal_anew();
  // What the session did for the running step counts for nothing.
  void forget(SessionId session);
  // Gives every microbatch without an owner to a live head member, in turn.
  void deal_heads();
  std::map<SessionId, std::uint32_t> head_share_;
  std::unordered_map<SessionId, Standing> standings_;
  std::vector<History> history_;  // per stage

  Plan plan_;
};

}  // namespace isthmus
