#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "scheduler/decisions.h"
#include "scheduler/join_patience.h"
#include "scheduler/ledger.h"
#include "scheduler/link_survey.h"
#include "scheduler/plan.h"
#include "scheduler/rebalance.h"
#include "scheduler/report.h"
#include "scheduler/step_guard.h"
#include "scheduler/step_paths.h"
#include "scheduler/view.h"

namespace isthmus {

// Who serves which place: as the run's roster says, until a replica is moved.
struct Seat {
  PeerId peer;
  StageId stage;
  ReplicaId replica;
  PublicKey key{};
};

// Everything known about a step once it is committed.
struct StepOutcome {
  Commit commit;
  StepFigures figures;
  std::map<PeerId, WorkerStats> stats;  // as of the last report before the commit
};

// What the coordinator's process has to do, in this order.
struct AppendRecord {
  LogRecord record;  // write and sync; on failure the process must end before the next effect
};
struct SendView {
  PeerId peer;
  View view;
};
struct StepCommitted {
  StepOutcome outcome;
};
// A line of events.jsonl.
struct Happened {
  // "admitted", "joining", "fetching", "suspected", "expelled", "moved", "dealt", "committed", "checkpoint", "rolled back", "skipped", "waiting",
  // "gone", "fault", "warning", "refused", "offender", "stopping", "finished"
  std::string event;
  StepId step;
  PeerId peer;
  std::string reason;
};
// Every worker has left, or the time for that is over: the process can end.
struct RunEnded {
  bool finished = false;  // all steps committed
  std::string reason;
  std::map<std::string, std::string> weights_hash;  // unit -> digest, when finished
  std::uint64_t version = 0;
};
using CoordinatorEffect = std::variant<AppendRecord, SendView, StepCommitted, Happened, RunEnded>;

// The coordinator as a pure state machine: membership, ledger and commit of each step (docs/protocol.md). It never
// sees a tensor, a clock or a socket. One thread.
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
    Duration repeat = seconds(1);
    // After a restart, or when its own loop stood still, nobody is expelled for this long: the silence was its own.
    Duration grace = seconds(10);
    Duration pause = std::chrono::milliseconds(500);
    Duration leave = seconds(60);
    // A step that is done waits this long for a joiner that has almost caught up, then not for a while (scheduler/join_patience.h).
    Duration join_wait = seconds(2);
    // … that is not more of today's steps behind than take so long.
    Duration join_within = seconds(3);
    // Whether, and how, replicas move from rich stages to poor ones; none: they stay.
    std::optional<Rebalance::Options> rebalance;
    Duration consider_moves = seconds(2);
    // A worker that was heard of so lately is expected back: its process is probably being started again.
    Duration expected_back = seconds(20);
    // To tell everybody takes a while if there are many: members that come and go within this time, for every so many peers,
    // are told of together.
    std::size_t crowd = 256;
    Duration round_pause = std::chrono::milliseconds(6);
    // Every link between two members is measured once in this time at most; zero: none is.
    Duration measure{};
  };

  Coordinator(const Plan& plan, std::vector<Seat> seats, Options options);

  // Rebuilds the state from the log; call before anything else. The records are not appended again.
  void replay(const std::vector<LogRecord>& log);
  // Begins (or begins again) from weights of this version: everybody has to be admitted anew.
  std::vector<CoordinatorEffect> begin(std::uint64_t version, Time now);

  std::vector<CoordinatorEffect> connected(PeerId peer, Time now);
  std::vector<CoordinatorEffect> disconnected(PeerId peer, Time now);
  std::vector<CoordinatorEffect> received(PeerId from, const Report& report, Time now);
  // A supervisor saw the peer's process end: no need to wait whether it comes back.
  std::vector<CoordinatorEffect> process_ended(PeerId peer, Time now);
  // It will not be started again, for this reason. Ends the run if nobody can ever serve its stage.
  std::vector<CoordinatorEffect> process_gone(PeerId peer, const std::string& what, Time now);
  // The peer shall serve another stage. It leaves after the running step, or at once if nobody serves that stage; not
  // at all if its own would then be without a replica. It fetches the weights of its new stage as one that joins.
  std::vector<CoordinatorEffect> move(PeerId peer, StageId to, const std::string& reason, Time now);
  std::vector<CoordinatorEffect> tick(Time now);
  // Ends the run before its time: workers drop the step, write a checkpoint and leave.
  std::vector<CoordinatorEffect> stop(const std::string& reason, Time now);

  Time next_due() const { return next_tick_; }
  const Decisions& decisions() const { return decisions_; }
  const std::map<PeerId, Report>& reports() const { return reports_; }
  Phase phase() const { return phase_; }
  const LinkSurvey& survey() const { return survey_; }

 private:
  struct Contact {
    Time heard{};
    std::optional<Time> lost;  // disconnected since
    bool reported = false;     // over this connection: before that there is nobody to tell, or nobody knows what he knows
  };

  struct PendingMove {
    PeerId peer;
    StageId to;
    std::string reason;
  };

  void append(LogRecord record);
  void take_seats();
  void begin_attempt();
  // Of a stage to somebody who has a view of this epoch: what all its replicas are told alike.
  using SharedViews = std::map<std::pair<StageId, EpochId>, View>;
  View view_of(StageId stage, EpochId known) const;
  void send_view(const Seat& seat, SharedViews& shared);
  void send_view(PeerId peer);
  void send_views();
  void send_views_soon();
  void happened(std::string event, PeerId peer, std::string reason);
  void expel(const Member& member, const std::string& reason);
  bool admit(const Seat& seat, Time now);
  void admit_candidates(Time now);
  std::uint64_t durable(StageId stage) const;
  bool is_candidate(const Seat& seat) const;
  Member member_of(const Seat& seat, const Report& report) const;
  void consider_unreachable(const Report& report);
  void hear_offences(const Report& report);
  void deal_returned(const Report& report);
  std::vector<UnitNorm> norms_of(StageId stage) const;
  bool cannot_repeat(const Seat& seat, const Report& report, Time now);
  void consider_rollback(const Seat& seat, const Report& report, const std::string& why);
  std::uint64_t last_good_version() const;
  void consider_bad_steps();
  void roll_back(RollbackRecord record, PeerId peer);
  void suspect(Time now);
  void expel_the_gone(Time now);
  void skip_the_empty(Time now);
  std::vector<StageId> still_empty() const;
  std::vector<StageId> still_absent() const;
  bool can_spare(const Member& member) const;
  bool can_be_served(StageId stage) const;
  SwarmLoad load(Time now) const;
  void note_moves(const LogRecord& record);
  void consider_moves(Time now);
  void stop_refilling(Time now);
  void plan_move(PendingMove move);
  void make_move();
  bool carry_out(const PendingMove& move);
  void drop_move();
  std::optional<Member> dissenter() const;
  bool waits_for_joiner(Time now);
  void evaluate(Time now);
  void commit();
  void enter(Phase phase, const std::string& reason, Time now);
  bool has_left(PeerId peer) const;
  void end_if_all_left(Time now);
  void turn(Time now);
  const Seat* seat_of(PeerId peer) const;
  std::uint32_t timeline() const { return static_cast<std::uint32_t>(decisions_.rollbacks.size()); }
  std::vector<CoordinatorEffect> take();

  Plan plan_;
  std::vector<Seat> roster_;  // where everybody was started
  std::vector<Seat> seats_;
  std::unordered_map<PeerId, std::size_t> seat_index_;
  Options options_;
  Decisions decisions_;
  StepGuard guard_;
  Ledger ledger_;
  LinkSurvey survey_;
  StepPaths paths_;  // of the running step
  std::map<StageId, Time> empty_since_;
  std::set<StageId> waited_for_;  // stages that may not be skipped any longer, which was said
  std::optional<Rebalance> rebalance_;
  std::optional<PendingMove> pending_move_;
  std::map<PeerId, std::string> gone_;  // will not be started again, and why
  std::set<StageId> given_up_;          // nobody is moved there any more
  Time next_moves_{};
  Time committed_{};         // the last step
  Duration step_time_{};     // between commits, moving average
  bool preparing_ = false;
  std::uint32_t replayed_ = 0;  // in this step
  Phase phase_ = Phase::kRunning;
  std::string reason_;
  Time ends_at_ = kNever;
  bool ended_ = false;
  std::unordered_map<PeerId, Contact> contacts_;
  std::map<PeerId, Report> reports_;  // newest of each peer
  std::vector<Report*> newest_;       // the same by seat; null: none yet
  std::set<std::size_t> outsiders_;   // seats whose newest report is of no live member: all candidates are among them
  std::vector<bool> durable_moved_;   // per stage: what it has on its disks has to be looked at again
  std::set<SessionId> joining_noted_;  // candidates whose missing versions were already reported
  JoinPatience join_patience_;
  std::map<SessionId, Time> cannot_repeat_since_;
  std::set<SessionId> suspected_;
  // The newest sync at which siblings found fault with a replica, and who did.
  std::map<SessionId, std::pair<std::uint64_t, std::set<SessionId>>> accused_;
  Time last_turn_{};
  Time patient_until_{};
  bool was_patient_ = false;  // most members were given time once; if they are still silent it was not this machine
  Time started_{};
  Time next_tick_{};
  Time next_repeat_{};
  Time next_round_{};  // not before this are all told of what can wait
  bool round_wanted_ = false;
  std::vector<CoordinatorEffect> effects_;
};

}  // namespace isthmus
