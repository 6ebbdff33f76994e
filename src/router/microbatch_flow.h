#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>

#include "base/done_set.h"
#include "router/device_pace.h"
#include "router/hop_choice.h"
#include "router/step_record.h"
#include "router/worker_context.h"
#include "scheduler/report.h"
#include "scheduler/stage_schedule.h"

namespace isthmus {

// Where each microbatch of the running step is, where it goes next, and what is kept of it until the commit
// (docs/protocol.md, "Microbatches"). Messages come here after the fences of WorkerSteps. One per worker.
class MicrobatchFlow {
 public:
  explicit MicrobatchFlow(WorkerContext& context);

  // Another step, attempt or life: drops every record.
  void clear();
  bool empty() const { return records_.empty(); }
  // The view has changed: new heads' shares, new or lost replicas of the next stage.
  void view_changed(bool epoch_changed, Time now);

  void received(const Forward& message, Time now);
  void received(const Backward& message, Time now);
  void received(const Ask& message, Time now);
  void received(const Held& message, Time now);
  void received(const Free& message, Time now);
  void received(const Cancel& message, Time now);
  void received(const Cancelled& message, Time now);
  void received(const Busy& message, Time now);
  void received(const TooLate& message, Time now);
  void received(const Probe& message, Time now);
  void received(const Receipt& message, Time now);

  // The next operation for the device, if there is one.
  std::optional<RunOperation> next(Time now);
  void operation_done(const OperationDone& done, Time now);

  void peer_connected(PeerId peer, Time now);
  void peer_lost(PeerId peer);
  void peer_heard(PeerId peer);
  void tick(Time now);
  Time next_due() const;

  const DoneSet& done() const { return done_; }
  const std::map<MicrobatchId, MicrobatchLoss>& losses() const { return losses_; }
  const StageSchedule& schedule() const { return schedule_; }
  Load load(Time now) const;
  // What this head will not begin before it is dealt again: it got slow, and its siblings may be faster.
  DoneSet returned() const;
  // Messages that no rule allows.
  std::uint64_t refused() const { return refused_; }
  std::uint64_t custody_bytes() const;

 private:
  using Entry = std::map<MicrobatchId, StepRecord>::iterator;

  void create_head_records();
  void replace_lost_successors(Time now);
  void forward_done(MicrobatchId m, StepRecord& record, const OperationDone& done, Time now);
  void gradient_arrived(MicrobatchId m, StepRecord& record, EncodedTensor gradient);
  void accumulated(MicrobatchId m, StepRecord& record);
  void send_forward(MicrobatchId m, StepRecord& record, Time now, SessionId avoid = kNoSession);
  void resend_forward(MicrobatchId m, StepRecord& record, Time now);
  void search(MicrobatchId m, StepRecord& record, Time now);
  void forward_if_nobody_holds(MicrobatchId m, StepRecord& record, Time now);
  void answer_holder(MicrobatchId m, std::uint32_t n, const StepRecord& record, SessionId asker, Time now);
  void send_backward(MicrobatchId m, const StepRecord& record);
  void ask(MicrobatchId m, StepRecord& record, Time now);
  bool wants_answer(MicrobatchId m, const StepRecord& record) const;
  void settle(StepRecord& record);
  void choose_another(MicrobatchId m, StepRecord& record, SessionId refuser, Time now);
  void cancel_if_slow(MicrobatchId m, StepRecord& record, Time now);
  void take_back(SessionId from, Time now);
  void watch_pace(Time now);
  void tell_pace(Time now);
  void return_unbegun();
  bool too_busy() const;
  std::vector<SessionId> suspected() const;
  // The record, if the answer is to its latest choice.
  StepRecord* answered(MicrobatchId m, std::uint32_t n);

  WorkerContext& context_;
  std::map<MicrobatchId, StepRecord> records_;
  std::map<std::pair<SessionId, MicrobatchId>, std::uint32_t> tombs_;  // cancelled or refused sends: up to this n
  StageSchedule schedule_;
  HopChoice hops_;
  DoneSet done_;
  std::map<MicrobatchId, MicrobatchLoss> losses_;
  std::set<PeerId> cut_;  // peers whose connection is down
  DevicePace pace_;
  Time pace_due_ = kNever;        // what runs then shows that the device has become slow
  std::array<double, 3> told_{};  // by Operation: seconds, as the others know them; 0: not yet
  bool slow_ = false;             // it became several times slower in this step
  DoneSet returned_;
  EpochId returned_at_;           // the view's, then
  std::uint64_t refused_ = 0;
};

}  // namespace isthmus
