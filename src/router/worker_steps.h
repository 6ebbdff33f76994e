#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/counter_random.h"
#include "base/ids.h"
#include "base/time.h"
#include "router/combination.h"
#include "router/effects.h"
#include "router/link_probe.h"
#include "router/microbatch_flow.h"
#include "router/outer_exchange.h"
#include "router/sibling_fetch.h"
#include "router/stage_rebuild.h"
#include "router/state_donor.h"
#include "router/worker_context.h"
#include "scheduler/plan.h"
#include "scheduler/report.h"
#include "scheduler/view.h"
#include "wire/message.h"

namespace isthmus {

// The worker's half of the step protocol (docs/protocol.md): views, fences, commits, phases, reports. Microbatches,
// the combination of gradients and the ways to catch up are parts of their own. A pure state machine: views, messages,
// job results and time go in, effects come out. Owned by the worker's io thread (in simulation, by the one thread
// there is).
class WorkerSteps {
 public:
  // What the weights in the compute thread are: steps they have seen, and the timeline of their checkpoint.
  struct Origin {
    std::uint64_t version = 0;
    std::uint32_t timeline = 0;
  };
  // `session_seed` must be fresh for every process
  // start (the operating system's randomness); sessions are drawn from it.
  WorkerSteps(const Plan& plan, WorkerIdentity identity, Origin origin, std::uint64_t session_seed);
  WorkerSteps(const WorkerSteps&) = delete;
  WorkerSteps& operator=(const WorkerSteps&) = delete;

  std::vector<WorkerEffect> view_received(const View& view, Time now);
  std::vector<WorkerEffect> message_received(PeerId from, Message message, Time now);
  std::vector<WorkerEffect> job_done(JobResult result, Time now);
  // The connection to a peer was (re)made: what may have been lost with the old one is asked for again.
  std::vector<WorkerEffect> peer_connected(PeerId peer, Time now);
  std::vector<WorkerEffect> peer_lost(PeerId peer, Time now);
  std::vector<WorkerEffect> tick(Time now);
  Time next_due() const;

  // Filled into every Report; the process keeps the counters.
  void set_stats(const WorkerStats& stats) { stats_ = stats; }

  // Why the device is idle, for people; empty while it works.
  std::string waiting_for() const;

  SessionId session() const { return context_.session; }
  std::uint64_t version() const { return version_; }
  const View& view() const { return context_.view; }
  // Messages dropped by the fences.
  std::uint64_t refused() const { return refused_ + flow_.refused(); }
  // For the bounds that tests hold: bytes in custody, messages held for a newer view.
  std::uint64_t custody_bytes() const { return flow_.custody_bytes(); }
  std::size_t held_messages() const { return held_.size(); }

 private:
  struct HeldMessage {
    PeerId from;
    Message message;
  };
  enum class Fence { kPass, kHold, kRefuse };

  View completed(const View& news) const;
  void adopt(const View& view, Time now);
  void roll_back(const View& view);
  void apply_commit(const Commit& commit);
  void save(std::uint64_t version);
  void clear_step(bool drop_accumulator);
  void new_session();
  void leave();
  void leave_phase(Time now);
  void catch_up(Time now);
  void ask_again(PeerId peer, Time now);
  void trim_journal();
  void prepare_if_complete(Time now);
  void prepare_own();
  bool agrees_on_its_share() const;
  // A sync is under way, and this replica is one of those who agree.
  bool syncing() const { return context_.live() && context_.syncs() && context_.view.step.value == version_ + 1; }
  double own_weight() const;
  void release_held(Time now);

  // Everything that visits this stage in this step and is this replica's, as far as it knows, is in its sum.
  bool share_is_done() const { return flow_.done().size() == context_.expected(); }
  bool is_neighbour(MicrobatchId m, StageId sender, int way) const;
  Fence fence(PeerId from, const StepTag& tag) const;
  void dispatch(PeerId from, const Message& message, Time now);
  template <class Body>
  void dispatch_tagged(PeerId from, const Body& body, Time now);
  void operation_done(const OperationDone& done, Time now);
  void run_next(Time now);
  void report(Time now);
  void refuse() { ++refused_; }
  std::vector<WorkerEffect> finish(Time now);

  const CounterRandom session_source_;
  std::uint64_t sessions_drawn_ = 0;
  WorkerContext context_;
  MicrobatchFlow flow_;
  Combination combination_;
  OuterExchange exchange_;
  StateDonor donor_;
  SiblingFetch fetch_;
  StageRebuild rebuild_;
  LinkProbe probe_;

  std::uint64_t version_;
  std::uint32_t timeline_;
  bool loading_ = false;         // another version is being read from the disk
  std::uint64_t checkpointed_;
  std::uint64_t save_started_;
  std::uint64_t trimmed_ = 0;
  std::deque<HeldMessage> held_;
  struct Running {
    JobTag tag;
    Task task;
    friend bool operator==(const Running&, const Running&) = default;
  };
  std::optional<Running> running_;       // on the device
  bool preparing_alone_ = false;         // the sole replica's sum is being closed
  EpochId preparing_own_;                // a replica that steps on its own closes its sum for this view; 0: it does not
  std::optional<PrepareDone> prepared_;  // the stage's sum of this (step, attempt, session)
  bool prepared_alone_ = false;
  EpochId prepared_epoch_;               // the newest view in which that sum is the stage's
  std::map<PeerId, Time> cut_since_;     // connections that are down
  Time coordinator_lost_ = kNever;
  std::uint32_t saves_ = 0;              // under way
  bool leaving_ = false;                 // the phase's last jobs were started
  bool digests_here_ = false;
  std::vector<UnitDigest> weights_;
  bool left_ = false;
  bool gone_ = false;                    // Leave was given out
  std::string fault_;
  std::string warning_;
  WorkerStats stats_;
  std::uint64_t refused_ = 0;
  DoneSet returned_told_;  // Report::returned, as it was told last
  bool report_changed_ = true;
  Time last_report_{};
};

}  // namespace isthmus
