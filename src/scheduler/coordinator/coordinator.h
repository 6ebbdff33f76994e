#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/plan.h"
#include "protocol/report.h"
#include "protocol/step_paths.h"
#include "protocol/view.h"
#include "scheduler/coordinator/absence.h"
#include "scheduler/coordinator/addresses.h"
#include "scheduler/coordinator/decisions.h"
#include "scheduler/coordinator/deposits.h"
#include "scheduler/coordinator/event_budget.h"
#include "scheduler/coordinator/events.h"
#include "scheduler/coordinator/join_patience.h"
#include "scheduler/coordinator/ledger.h"
#include "scheduler/coordinator/link_survey.h"
#include "scheduler/coordinator/liveness.h"
#include "scheduler/coordinator/rebalance.h"
#include "scheduler/coordinator/run_status.h"
#include "scheduler/coordinator/seating.h"
#include "scheduler/coordinator/trust.h"
#include "scheduler/coordinator/verdicts.h"

namespace isthmus::coordinator {

// Everything known about a step once it is committed.
struct StepOutcome {
  protocol::Commit commit;
  StepFigures figures;
  std::map<PeerId, protocol::WorkerStats> stats;  // as of the last report before the commit
};

// What the coordinator's process has to do, in this order.
struct AppendRecord {
  LogRecord record;  // write and sync; on failure the process must end before the next effect
};
struct SendView {
  PeerId peer;
  protocol::View view;
};
struct StepCommitted {
  StepOutcome outcome;
};
// An identity may take part, as this peer: its key is let in from now on, and it waits until it is seated.
struct LetIn {
  PeerId peer;
  protocol::PublicKey identity{};
  protocol::PublicKey key{};
};
// An identity may not take part.
struct TurnAway {
  protocol::PublicKey identity{};
  std::string reason;         // for people, theirs too
  bool for_a_moment = false;  // the reason may be gone in a few seconds
};
// The peer serves here from now on.
struct TakeSeat {
  PeerId peer;
  protocol::Place place;
};
// The peer takes no part any more: its key is let in no longer, and its connections are closed.
struct ShutOut {
  PeerId peer;
};
// Every worker has left, or the time for that is over: the process can end.
struct RunEnded {
  bool finished = false;  // all steps committed, and the last of them changed the weights
  std::string reason;
  std::string unsaved;                              // finished, but stages' last checkpoints are on no disk: which
  std::map<std::string, std::string> weights_hash;  // unit -> digest, when finished
  std::uint64_t version = 0;
};
using CoordinatorEffect =
    std::variant<AppendRecord, SendView, StepCommitted, Happened, LetIn, TurnAway, TakeSeat, ShutOut, RunEnded>;

// The coordinator as a pure state machine: membership, ledger and commit of each step (docs/protocol.md). It never
// sees a tensor, a clock or a socket. One thread.
//
// Who takes part comes from the log alone. enrolled (waits) → seated → candidate → member; expelled or moved: candidate
// again; unseated: waits; revoked: out. A run begins as soon as every stage has a member; the seats beyond are filled
// meanwhile.
class Coordinator {
 public:
  struct Options {
    double clip = 0;  // largest norm of the whole gradient; 0: none
    StepGuard::Options guard;
    std::uint32_t checkpoints_kept = 2;  // the newest of every stage
    // So that a worker is suspected within a second of its last moment, the way of its last report included.
    Duration suspicion = std::chrono::milliseconds(900);
    Duration silence = seconds(3);
    Duration reconnect = seconds(1);
    Duration remote_silence = seconds(10);  // of members on other machines
    Duration remote_reconnect = seconds(5);
    Duration repeat = seconds(1);
    // After a restart, or when its own loop stood still, nobody is expelled for this long: the silence was its own.
    Duration grace = seconds(10);
    Duration pause = std::chrono::milliseconds(500);
    Duration leave = seconds(60);
    // A step that is done waits this long for a joiner that has almost caught up, then not for a while
    // (scheduler/coordinator/join_patience.h).
    Duration join_wait = seconds(2);
    // … that is not more of today's steps behind than take so long.
    Duration join_within = seconds(3);
    // The first step since the start, once it is done, waits so long for workers that have a seat and still load:
    // whoever misses it has to be sent the weights.
    Duration load_wait = seconds(10);
    // Whether, and how, replicas move from rich stages to poor ones; none: they stay.
    std::optional<Rebalance::Options> rebalance;
    Duration consider_moves = seconds(2);
    Seating::Options seating;
    Trust trust;
    // To tell everybody takes a while if there are many: members that come and go within this time, for every so many
    // peers, are told of together.
    std::size_t crowd = 256;
    Duration round_pause = std::chrono::milliseconds(6);
    // Every link between two members is measured once in this time at most; zero: none is.
    Duration measure{};
    // Checkpoints count once vaulted() says so, wherever else they are.
    bool vault = false;
  };

  Coordinator(const protocol::Plan& plan, Options options);

  // Rebuilds the state from the log; call before anything else. The records are not appended again. Afterwards the keys
  // in decisions().peers, but for revoked ones, are to be let in.
  void replay(const std::vector<LogRecord>& log);
  // Begins (or begins again) from weights of this version: everybody has to be admitted anew.
  std::vector<CoordinatorEffect> begin(std::uint64_t version, Time now);

  // Lets whoever shows the key enrol; the caller opens its door to decisions().invites.
  std::vector<CoordinatorEffect> invite(const InviteRecord& invite, Time now);
  // Nobody new enrols with it. An unknown key, or one that was withdrawn: no effects.
  std::vector<CoordinatorEffect> withdraw(const protocol::PublicKey& key, Time now);
  // LetIn or TurnAway comes back, behind the record that says so. The same identity again: the same answer, and
  // no record; with another CURVE key it is refused. Whoever waits calls this every few seconds, or is connected:
  // nobody else is seated. Where it serves or stands in the queue: place_of, queued.
  std::vector<CoordinatorEffect> enrol(const Enrolment& enrolment, Time now);
  // Out at once, for this reason; with `ban` its identity never comes back. An unknown peer: no effects.
  std::vector<CoordinatorEffect> revoke(PeerId peer, const std::string& reason, bool ban, Time now);
  std::optional<protocol::Place> place_of(PeerId peer) const { return decisions_.place_of(peer); }
  std::optional<Queued> queued(PeerId peer) const { return seating_.queued(decisions_, liveness_, peer); }
  // Whoever holds this identity will not come: its seat goes to others at once, and it is given none until it enrols
  // anew. For those that have not begun to serve; members say so in their reports. An unknown identity: no effects.
  std::vector<CoordinatorEffect> good_bye(const protocol::PublicKey& identity, const std::string& why, Time now);

  // Where the peer is; said before its first report, and again when it is somewhere else. Never said: where all are.
  void located(PeerId peer, const protocol::Location& location) { addresses_.located(peer, location); }
  std::vector<CoordinatorEffect> connected(PeerId peer, Time now);
  std::vector<CoordinatorEffect> disconnected(PeerId peer, Time now);
  std::vector<CoordinatorEffect> received(PeerId from, const protocol::Report& report, Time now);
  // A supervisor saw the peer's process end: no need to wait whether it comes back.
  std::vector<CoordinatorEffect> process_ended(PeerId peer, Time now);
  // It will not be started again, for this reason. Ends the run if nobody can ever serve its stage.
  std::vector<CoordinatorEffect> process_gone(PeerId peer, const std::string& what, Time now);
  // The peer shall serve another stage. It leaves after the running step, or at once if nobody serves that stage; not
  // at all if its own would then be without a replica. It fetches the weights of its new stage as one that joins.
  std::vector<CoordinatorEffect> move(PeerId peer, StageId to, const std::string& reason, Time now);
  // The stage's checkpoint is whole in the vault.
  std::vector<CoordinatorEffect> vaulted(StageId stage, std::uint64_t version, Time now);
  // The newest one there, as it is found when the coordinator begins.
  void vault_has(StageId stage, std::uint64_t version) { vault_has_[stage.value] = version; }
  // The version that is on its way there, which workers are to keep for it; 0: none.
  void vault_takes(std::uint64_t version) { vault_takes_ = version; }
  // Checkpoints are on their way there: the end of the run waits for them.
  void vault_is_busy(bool busy) { vault_busy_ = busy; }
  // Members and the newest checkpoints on their disks, of this timeline.
  std::vector<CheckpointHolder> checkpoint_holders() const;
  std::vector<CoordinatorEffect> tick(Time now);
  // Ends the run before its time: workers drop the step, write a checkpoint and leave.
  std::vector<CoordinatorEffect> stop(const std::string& reason, Time now);

  // The run as it is now. Costs as much as all its workers: a few times a second.
  RunStatus status(Time now) const;
  Time next_due() const { return next_tick_; }
  const Decisions& decisions() const { return decisions_; }
  const std::map<PeerId, protocol::Report>& reports() const { return reports_; }
  protocol::Phase phase() const { return phase_; }
  const LinkSurvey& survey() const { return survey_; }

 private:
  struct PendingMove {
    PeerId peer;
    StageId to;
    std::string reason;
  };

  void append(LogRecord record);
  bool gives_seats() const;
  void shut_out(PeerId peer, const std::string& reason, bool ban);
  void take_seats();
  void free_seats();
  void fill_seats();
  void begin_attempt();
  // Of a stage to somebody who has a view of this epoch: what all its replicas are told alike.
  using SharedViews = std::map<std::pair<StageId, EpochId>, protocol::View>;
  protocol::View view_of(StageId stage, EpochId known) const;
  void send_view(const Seat& seat, SharedViews& shared);
  void send_view(PeerId peer);
  void send_views();
  void send_views_soon();
  void happened(Event event) { happened(decisions_.step, std::move(event)); }
  void happened(StepId step, Event event);
  // Because of what a peer says, which it can do as often as it likes.
  void said(Event event);
  void expel(const protocol::Member& member, const std::string& reason);
  bool admit(const Seat& seat);
  void admit_candidates(Time now);
  std::uint64_t checkpoint_of(const protocol::Report& report) const;
  std::uint64_t durable(StageId stage) const;
  std::string unsaved() const;
  bool is_candidate(const Seat& seat) const;
  protocol::Member member_of(const Seat& seat, const protocol::Report& report) const;
  void deal_returned(const protocol::Report& report);
  std::vector<protocol::UnitNorm> norms_of(StageId stage) const;
  void consider_rollback(const Seat& seat, const protocol::Report& report, const std::string& why);
  void consider_bad_steps();
  void roll_back(RollbackRecord record, PeerId peer);
  void suspect();
  void expel_the_lost();
  void skip_the_empty(Time now);
  bool can_spare(const protocol::Member& member) const;
  bool can_be_served(StageId stage) const;
  SwarmLoad load(Time now) const;
  void note_moves(const LogRecord& record);
  void consider_moves(Time now);
  void stop_refilling(Time now);
  void plan_move(PendingMove move);
  void make_move();
  bool carry_out(const PendingMove& move);
  void drop_move();
  bool waits_for_loader(Time now);
  bool waits_for_joiner(Time now);
  void evaluate(Time now);
  void commit();
  void enter(protocol::Phase phase, const std::string& reason, Time now);
  bool somebody_comes(StageId stage) const;
  void consider_leaving(PeerId peer);
  void let_leavers_go();
  void let_go(PeerId peer, const std::string& when);
  void release(PeerId peer, StageId stage);
  bool has_left(PeerId peer) const;
  void end_if_all_left(Time now);
  std::uint32_t timeline() const { return static_cast<std::uint32_t>(decisions_.rollbacks.size()); }
  std::vector<CoordinatorEffect> take();
  void describe(RunStatus::Worker& worker, const protocol::Report* report) const;
  void describe(RunStatus::Stage& stage, StageId id, const RunStatus& status) const;

  protocol::Plan plan_;
  Options options_;
  Decisions decisions_;
  Liveness liveness_;
  Seating seating_;
  Absence absence_;
  Verdicts verdicts_;
  Ledger ledger_;
  LinkSurvey survey_;
  protocol::StepPaths paths_;  // of the running step
  std::optional<Rebalance> rebalance_;
  std::optional<PendingMove> pending_move_;
  std::set<StageId> given_up_;  // nobody is moved there any more
  Time next_moves_{};
  Time committed_{};                   // the last step
  Duration step_time_{};               // between commits, moving average
  std::optional<Time> loading_until_;  // set once the first step is done
  bool preparing_ = false;
  std::uint32_t replayed_ = 0;  // in this step
  protocol::Phase phase_ = protocol::Phase::kRunning;
  std::string reason_;
  Time ends_at_ = kNever;
  bool ended_ = false;
  Addresses addresses_;
  std::map<PeerId, protocol::Report> reports_;  // newest of each peer
  std::vector<protocol::Report*> newest_;       // the same by seat; null: none yet
  std::set<PeerId> outsiders_;  // whose newest report is of no live member: all candidates are among them
  bool vault_busy_ = false;
  std::uint64_t vault_takes_ = 0;
  std::vector<std::uint64_t> vault_has_;       // per stage
  std::vector<bool> durable_moved_;            // per stage: what it has on its disks has to be looked at again
  std::map<PeerId, SessionId> joining_noted_;  // candidates whose missing versions were already reported
  JoinPatience join_patience_;
  Time next_tick_{};
  Time next_repeat_{};
  Time next_round_{};  // not before this are all told of what can wait
  bool round_wanted_ = false;
  EventBudget event_budget_;
  std::deque<Happened> recent_;  // events, the last ones
  std::vector<CoordinatorEffect> effects_;
};

}  // namespace isthmus::coordinator
