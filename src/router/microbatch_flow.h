#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>

#include "base/done_set.h"
#include "protocol/report.h"
#include "protocol/stage_schedule.h"
#include "router/device_pace.h"
#include "router/downstream.h"
#include "router/step_record.h"
#include "router/token_supply.h"
#include "router/worker_context.h"

namespace isthmus::router {

// Where each microbatch of the running step is, where it goes next, and what is kept of it until the commit
// (docs/protocol.md, "Microbatches"). Messages come here after the fences of WorkerSteps. One per worker.
class MicrobatchFlow {
 public:
  MicrobatchFlow(WorkerContext& context, TokenSupply& tokens);

  // Another step, attempt or life: drops every record.
  void clear();
  bool empty() const { return records_.empty(); }
  // The view has changed: new heads' shares, new or lost replicas of the next stage.
  void view_changed(bool epoch_changed, Time now);
  // A head's microbatches whose token ids have come can run.
  void tokens_arrived();

  void received(const protocol::Forward& message, Time now);
  void received(const protocol::Backward& message, Time now);
  void received(const protocol::Ask& message, Time now);
  void received(const protocol::Cancel& message, Time now);
  void received(const protocol::Probe& message, Time now);
  // Answers of the next stage.
  template <class Answer>
  void received(const Answer& message, Time now) {
    downstream_.received(message, now);
  }

  // The next operation for the device, if there is one.
  std::optional<protocol::RunOperation> next(Time now);
  void operation_done(const protocol::OperationDone& done, Time now);

  void peer_connected(PeerId peer, Time now) { downstream_.peer_connected(peer, now); }
  void peer_lost(PeerId peer) { downstream_.peer_lost(peer); }
  void peer_heard(PeerId peer) { downstream_.peer_heard(peer); }
  void tick(Time now);
  Time next_due() const;

  const DoneSet& done() const { return done_; }
  const std::map<MicrobatchId, protocol::MicrobatchLoss>& losses() const { return losses_; }
  const protocol::StageSchedule& schedule() const { return schedule_; }
  protocol::Load load(Time now) const;
  // A head hands back what it has not begun, because it will leave.
  void leaves() { return_unbegun(); }
  // What this head will not begin before it is dealt again: it got slow, or leaves, and its siblings do not.
  DoneSet returned() const;
  // The device could run a microbatch if its token ids were here.
  bool waits_for_tokens() const;
  // Messages that no rule allows.
  std::uint64_t refused() const { return refused_; }
  std::uint64_t custody_bytes() const;

 private:
  void create_head_records(Time now);
  void forward_done(MicrobatchId m, StepRecord& record, const protocol::OperationDone& done, Time now);
  void gradient_arrived(MicrobatchId m, StepRecord& record, compress::EncodedTensor gradient);
  void accumulated(MicrobatchId m, StepRecord& record);
  void answer_holder(MicrobatchId m, std::uint32_t n, const StepRecord& record, SessionId asker, Time now);
  void send_backward(MicrobatchId m, const StepRecord& record);
  void watch_pace(Time now);
  void tell_pace(Time now);
  void return_unbegun();
  bool too_busy() const;

  WorkerContext& context_;
  TokenSupply& tokens_;
  StepRecords records_;
  Downstream downstream_;
  std::map<std::pair<SessionId, MicrobatchId>, std::uint32_t> tombs_;  // cancelled or refused sends: up to this n
  protocol::StageSchedule schedule_;
  DoneSet done_;
  std::map<MicrobatchId, protocol::MicrobatchLoss> losses_;
  DevicePace pace_;
  Time pace_due_ = kNever;        // what runs then shows that the device has become slow
  std::array<double, 3> told_{};  // by Operation: seconds, as the others know them; 0: not yet
  bool slow_ = false;             // it became several times slower in this step
  DoneSet returned_;
  EpochId returned_at_;  // the view's, then
  std::uint64_t refused_ = 0;
};

}  // namespace isthmus::router
