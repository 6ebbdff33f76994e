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
#include "router/effects.h"
#include "router/step_record.h"
#include "scheduler/plan.h"
#include "scheduler/report.h"
#include "scheduler/stage_schedule.h"
#include "scheduler/view.h"
#include "wire/message.h"

namespace isthmus {

// The worker's half of the step protocol (docs/protocol.md): where each microbatch is, where it goes next, what is
// kept until the commit, what the device runs. A pure state machine: views, messages, job results and time go in,
// effects come out. Owned by the worker's io thread (in simulation, by the one thread there is).
class WorkerSteps {
 public:
  struct Identity {
    PeerId peer;
    StageId stage;
    ReplicaId replica;
    Endpoints endpoints;
    // After this long without the answer a successor owes, ask for it: at least twice the time in which an uplink
    // moves a whole step's boundary traffic, so that slow is not taken for lost.
    Duration ask_after = seconds(2);
  };

  // `version`: steps that the weights in the compute thread have seen. `session_seed` must be fresh for every process
  // start (the operating system's randomness); sessions are drawn from it.
  WorkerSteps(const Plan& plan, Identity identity, std::uint64_t version,
              std::uint64_t session_seed);

  std::vector<WorkerEffect> view_received(const View& view, Time now);
  std::vector<WorkerEffect> message_received(PeerId from, Message message, Time now);
  std::vector<WorkerEffect> job_done(JobResult result, Time now);
  // The connection to a peer was (re)made: what may have been lost with the old one is asked for again.
  std::vector<WorkerEffect> peer_connected(PeerId peer, Time now);
  std::vector<WorkerEffect> coordinator_lost(Time now);
  std::vector<WorkerEffect> tick(Time now);
  Time next_due() const;

  // Filled into every Report; the process keeps the counters.
  void set_stats(const WorkerStats& stats) { stats_ = stats; }

  // Why the device is idle, for people; empty while it works.
  std::string waiting_for() const;

  SessionId session() const { return session_; }
  std::uint64_t version() const { return version_; }
  const View& view() const { return view_; }
  // Messages dropped by the fences, and why the last one was.
  std::uint64_t refused() const { return refused_; }
  // Bytes in custody, for the bound that tests hold.
  std::uint64_t custody_bytes() const;

 private:
  struct HeldMessage {
    PeerId from;
    Message message;
  };

  bool live() const { return view_.find(session_) != nullptr; }
  bool is_head() const { return identity_.stage == StageId(0); }
  bool is_tail() const { return identity_.stage == plan_.last_stage(); }
  bool training(MicrobatchId m) const { return plan_.is_training(view_.step, m); }
  StepTag tag_to(SessionId to) const;
  JobTag job_tag() const { return {view_.step, view_.attempt, session_}; }
  std::vector<const Member*> next_stage() const;

  void adopt(const View& view, Time now);
  void apply_commit(const Commit& commit);
  void save(std::uint64_t version);
  void clear_step(bool drop_accumulator);
  void new_session();
  void leave_phase(Time now);
  void create_head_records();
  void replace_lost_successors(Time now);
  void prepare_if_complete();
  void release_held(Time now);

  // The fences: nothing if the message may be handled now.
  std::optional<std::string> fence(PeerId from, const StepTag& tag, bool& hold) const;
  void handle(PeerId from, const Forward& message, Time now);
  void handle(PeerId from, const Backward& message, Time now);
  void handle(PeerId from, const Ask& message, Time now);
  void handle(PeerId from, const Held& message, Time now);
  void handle(PeerId from, const Free& message, Time now);
  template <class Other>
  void handle(PeerId, const Other&, Time) {
    refuse();
  }
  void dispatch(PeerId from, const Message& message, Time now);

  void operation_done(const OperationDone& done, Time now);
  void forward_done(MicrobatchId m, StepRecord& record, const OperationDone& done, Time now);
  void gradient_arrived(MicrobatchId m, StepRecord& record, EncodedTensor gradient);
  void accumulated(MicrobatchId m, StepRecord& record, Time now);
  void send_forward(MicrobatchId m, StepRecord& record, Time now);
  void resend_forward(MicrobatchId m, StepRecord& record, Time now);
  void search(MicrobatchId m, StepRecord& record, Time now);
  void forward_if_nobody_holds(MicrobatchId m, StepRecord& record, Time now);
  void answer_holder(MicrobatchId m, std::uint32_t n, const StepRecord& record, SessionId asker);
  void send_backward(MicrobatchId m, const StepRecord& record);
  void ask(MicrobatchId m, StepRecord& record, Time now);
  bool wants_answer(MicrobatchId m, const StepRecord& record) const;
  void run_next();
  void report(Time now);
  void send_to(SessionId to, Message message);
  void refuse() { ++refused_; }
  std::vector<WorkerEffect> finish(Time now);

  const Plan plan_;
  const Identity identity_;
  const CounterRandom session_source_;
  std::uint64_t sessions_drawn_ = 0;
  SessionId session_;
  std::uint64_t version_;
  std::uint64_t checkpointed_;
  std::uint64_t save_started_;
  View view_;
  std::map<MicrobatchId, StepRecord> records_;
  StageSchedule schedule_;
  DoneSet done_;
  std::map<MicrobatchId, MicrobatchLoss> losses_;
  std::deque<HeldMessage> held_;
  bool device_busy_ = false;
  bool preparing_ = false;             // the job is under way
  std::optional<PrepareDone> prepared_;  // the sum of this (step, attempt, session) is closed
  EpochId prepared_epoch_;             // the newest view in which that sum is the stage's
  std::uint32_t saves_ = 0;            // under way
  bool leaving_ = false;   // the phase's last jobs were started
  bool digests_here_ = false;
  std::vector<UnitDigest> weights_;
  bool left_ = false;
  bool gone_ = false;      // Leave was given out
  std::string fault_;
  WorkerStats stats_;
  std::uint64_t refused_ = 0;
  bool report_changed_ = true;
  Time last_report_{};
  std::vector<WorkerEffect> effects_;
};

}  // namespace isthmus
