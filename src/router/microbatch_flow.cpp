#include "router/microbatch_flow.h"

#include <algorithm>
#include <ranges>
#include <utility>

namespace isthmus::router {

namespace {

constexpr double kToldAnew = 2;  // times slower, or faster, than the others know

std::uint64_t to_us(double s) { return static_cast<std::uint64_t>(s * 1e6); }

}  // namespace

MicrobatchFlow::MicrobatchFlow(WorkerContext& context, TokenSupply& tokens)
    : context_(context),
      tokens_(tokens),
      downstream_(context, records_),
      schedule_(context.plan.schedule, context.stage_plan().credits) {}

void MicrobatchFlow::clear() {
  downstream_.settle_all();
  records_.clear();
  tombs_.clear();
  losses_.clear();
  schedule_ = protocol::StageSchedule(context_.plan.schedule, context_.stage_plan().credits);
  done_ = DoneSet(context_.plan.count(context_.view.step));
  returned_ = DoneSet();
  pace_.forget_running();
  pace_due_ = kNever;
  slow_ = false;
}

void MicrobatchFlow::view_changed(bool epoch_changed, Time now) {
  create_head_records(now);
  downstream_.view_changed(epoch_changed, now);
}

void MicrobatchFlow::create_head_records(Time now) {
  if (!context_.is_head()) return;
  returned_ = returned();
  std::set<MicrobatchId> own;
  for (std::uint32_t i = 0; i < context_.view.head_owner.size(); ++i) {
    const MicrobatchId m(i);
    if (context_.view.head_owner[i] != context_.session) continue;
    if (context_.training(m)) own.insert(m);
    if (records_.contains(m) || returned_.contains(m)) continue;
    StepRecord& record = records_[m];
    record.progress = Progress::kUnread;
    record.again = context_.view.head_again[i];
  }
  tokens_.want(context_.view.step, own, now);
  tokens_arrived();
}

void MicrobatchFlow::tokens_arrived() {
  for (auto& [m, record] : records_) {
    if (record.progress != Progress::kUnread) continue;
    const auto* ids = tokens_.find(context_.view.step, m);
    if (!ids) continue;
    record.input = *ids;
    record.progress = Progress::kWaiting;
    schedule_.forward_ready(m, context_.training(m));
  }
}

bool MicrobatchFlow::waits_for_tokens() const {
  return std::ranges::any_of(records_, [&](const auto& r) {
    const bool has_room = !context_.training(r.first) || schedule_.in_flight() < context_.stage_plan().credits;
    return r.second.progress == Progress::kUnread && has_room;
  });
}

// ------------------------------------------------------------------------------------------ from upstream

bool MicrobatchFlow::too_busy() const {
  if (context_.own_stage().size() < 2) return false;
  const auto waiting = std::ranges::count_if(records_, [](const auto& r) { return !r.second.forward_started(); });
  return static_cast<std::uint32_t>(waiting) >= std::max(2u, context_.stage_plan().credits);
}

void MicrobatchFlow::received(const protocol::Forward& message, Time now) {
  const MicrobatchId m = message.microbatch;
  const SessionId from = message.tag.from;
  if (const auto tomb = tombs_.find({from, m}); tomb != tombs_.end() && message.n <= tomb->second) return;
  auto at = records_.find(m);
  if (at == records_.end()) {
    if (too_busy()) {
      tombs_[{from, m}] = message.n;
      context_.send_to(from, protocol::Busy{context_.tag_to(from), m, message.n, load(now)});
      return;
    }
    at = records_.try_emplace(m).first;
    at->second.input = message.tensor;
    at->second.again = message.again;
    schedule_.forward_ready(m, context_.training(m));
  }
  at->second.predecessor = from;  // always the latest live asker
  answer_holder(m, message.n, at->second, from, now);
}

void MicrobatchFlow::received(const protocol::Ask& message, Time now) {
  const SessionId from = message.tag.from;
  const auto at = records_.find(message.microbatch);
  if (at == records_.end()) {
    const auto tomb = tombs_.find({from, message.microbatch});
    if (tomb != tombs_.end() && message.n <= tomb->second)
      context_.send_to(from, protocol::Cancelled{context_.tag_to(from), message.microbatch, message.n, load(now)});
    else
      context_.send_to(from, protocol::Free{context_.tag_to(from), message.microbatch, message.n});
    return;
  }
  at->second.predecessor = from;
  answer_holder(message.microbatch, message.n, at->second, from, now);
}

void MicrobatchFlow::received(const protocol::Cancel& message, Time now) {
  const MicrobatchId m = message.microbatch;
  const SessionId from = message.tag.from;
  const auto at = records_.find(m);
  if (at != records_.end()) {
    if (at->second.predecessor != from) return;
    if (at->second.forward_started() || !schedule_.cancel_forward(m)) {
      context_.send_to(from, protocol::TooLate{context_.tag_to(from), m, message.n});
      return;
    }
    records_.erase(at);
  }
  auto& tomb = tombs_[{from, m}];
  tomb = std::max(tomb, message.n);
  context_.send_to(from, protocol::Cancelled{context_.tag_to(from), m, message.n, load(now)});
}

void MicrobatchFlow::answer_holder(MicrobatchId m, std::uint32_t n, const StepRecord& record, SessionId asker,
                                   Time now) {
  if (record.returned_ready())
    send_backward(m, record);
  else
    context_.send_to(asker, protocol::Held{context_.tag_to(asker), m, n, load(now)});
}

void MicrobatchFlow::received(const protocol::Probe& message, Time now) {
  context_.send_to(message.tag.from, protocol::Receipt{context_.tag_to(message.tag.from), message.sent_us, load(now)});
}

// What the device still has to do, by what each operation takes now.
protocol::Load MicrobatchFlow::load(Time now) const {
  const double f = pace_.seconds(protocol::Operation::kForward, now),
               i = pace_.seconds(protocol::Operation::kInputGradient, now);
  const double w = pace_.seconds(protocol::Operation::kWeightGradient, now);
  double backlog = 0;
  for (const auto& [m, record] : records_) {
    if (record.done()) continue;
    if (!record.forward_done()) backlog += f;
    if (!context_.training(m)) continue;
    if (!record.returned_ready()) backlog += i;
    backlog += w;
  }
  return {to_us(backlog), to_us(f + i + w), slow_};
}

// ------------------------------------------------------------------------------------------ its own pace

// Whoever gave this worker something need not hear of it for a while, and a head hears of nobody: so once it takes
// several times as long as the others know, or as short, it says so. A message for each change and predecessor, no
// more.
void MicrobatchFlow::watch_pace(Time now) {
  double known = 0, is = 0;
  for (const auto operation :
       {protocol::Operation::kForward, protocol::Operation::kInputGradient, protocol::Operation::kWeightGradient}) {
    double& told = told_[static_cast<std::size_t>(operation)];
    if (told == 0) told = pace_.seconds(operation, now);
    known += told;
    if (told > 0) is += pace_.seconds(operation, now);
  }
  if (is < kToldAnew * known && known < kToldAnew * is) return;
  if (known == 0) return;
  slow_ = is > known;
  for (auto& told : told_) told *= is / known;
  if (slow_) return_unbegun();
  tell_pace(now);
}

void MicrobatchFlow::tell_pace(Time now) {
  std::set<SessionId> predecessors;
  for (const auto& [m, record] : records_)
    if (record.predecessor != kNoSession && !(slow_ && record.forward_started()))
      predecessors.insert(record.predecessor);
  for (const SessionId session : predecessors)
    context_.send_to(session, protocol::Receipt{context_.tag_to(session), protocol::kUnasked, load(now)});
}

// What this head has not begun nobody has ever seen of it, so it can be any head's. It promises not to begin it: until
// a decision after this view says otherwise (View::dealt_again), that it is the owner says nothing.
void MicrobatchFlow::return_unbegun() {
  if (!context_.is_head() || context_.own_stage().size() < 2 || context_.plan.routing != protocol::Routing::kFinishTime)
    return;
  returned_ = returned();
  if (returned_.count() == 0) returned_ = DoneSet(context_.plan.count(context_.view.step));
  std::erase_if(records_, [&](const auto& entry) {
    if (entry.second.forward_started()) return false;
    schedule_.cancel_forward(entry.first);
    returned_.insert(entry.first);
    return true;
  });
  if (returned_.size() == 0) returned_ = DoneSet();
  returned_at_ = context_.view.epoch;
}

DoneSet MicrobatchFlow::returned() const { return context_.view.dealt_again > returned_at_ ? DoneSet() : returned_; }

// ---------------------------------------------------------------------------------------- from downstream

void MicrobatchFlow::received(const protocol::Backward& message, Time) {
  const auto at = records_.find(message.microbatch);
  if (at == records_.end() || !context_.training(message.microbatch)) {
    ++refused_;
    return;
  }
  StepRecord& record = at->second;
  if (!downstream_.returned(record, message.tag.from)) return;
  if (!record.gradient_here()) gradient_arrived(message.microbatch, record, message.tensor);
}

// ------------------------------------------------------------------------------------------ one microbatch

void MicrobatchFlow::forward_done(MicrobatchId m, StepRecord& record, const protocol::OperationDone& done, Time now) {
  record.progress = Progress::kForwardDone;
  record.sent = done.tensor;
  for (const auto& loss : done.loss) losses_[m] = loss;
  if (context_.is_tail()) {
    if (context_.training(m)) gradient_arrived(m, record, {});
  } else {
    downstream_.forward(m, record, now);
  }
  if (!context_.training(m)) accumulated(m, record);
}

void MicrobatchFlow::gradient_arrived(MicrobatchId m, StepRecord& record, compress::EncodedTensor gradient) {
  record.progress = Progress::kGradientHere;
  record.received = std::move(gradient);
  schedule_.gradient_ready(m);
}

void MicrobatchFlow::accumulated(MicrobatchId m, StepRecord& record) {
  record.progress = context_.training(m) ? Progress::kAccumulated : Progress::kEvaluated;
  done_.insert(m);
}

void MicrobatchFlow::send_backward(MicrobatchId m, const StepRecord& record) {
  const SessionId to = record.predecessor;
  context_.send_to(to, protocol::Backward{context_.tag_to(to), m, record.returned});
}

// ------------------------------------------------------------------------------------------ the device

std::optional<protocol::RunOperation> MicrobatchFlow::next(Time now) {
  const auto task = schedule_.next();
  if (!task) return std::nullopt;
  StepRecord& record = records_.at(task->microbatch);
  protocol::RunOperation run{context_.job_tag(), *task, context_.training(task->microbatch), {}};
  if (task->operation == protocol::Operation::kForward) {
    record.progress = Progress::kForward;
    run.tensor = record.input;
  }
  if (task->operation == protocol::Operation::kInputGradient) run.tensor = record.received;
  pace_.began(task->operation, now);
  pace_due_ = pace_.next_due(now);
  return run;
}

void MicrobatchFlow::operation_done(const protocol::OperationDone& done, Time now) {
  const MicrobatchId m = done.task.microbatch;
  // What else the device did in between, an update for a sync for instance, says nothing about the next microbatch.
  pace_due_ = kNever;
  pace_.ended(done.task.operation, done.took > Duration{} ? done.took : now - pace_.running_since());
  const auto at = records_.find(m);
  if (at == records_.end()) return;
  StepRecord& record = at->second;
  switch (done.task.operation) {
    case protocol::Operation::kForward:
      forward_done(m, record, done, now);
      break;
    case protocol::Operation::kInputGradient:
      record.returned = done.tensor;
      record.progress = Progress::kReturned;
      schedule_.input_gradient_done(m);
      if (!context_.is_head()) send_backward(m, record);
      break;
    case protocol::Operation::kWeightGradient:
      accumulated(m, record);
      break;
  }
  watch_pace(now);
}

// ---------------------------------------------------------------------------------------------- timers

void MicrobatchFlow::tick(Time now) {
  if (pace_due_ <= now) {
    watch_pace(now);
    pace_due_ = pace_.next_due(now);
  }
  downstream_.tick(now);
}

Time MicrobatchFlow::next_due() const { return std::min(pace_due_, downstream_.next_due()); }

std::uint64_t MicrobatchFlow::custody_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& [m, record] : records_)
    bytes += record.input.bytes() + record.sent.bytes() + record.received.bytes() + record.returned.bytes();
  return bytes;
}

}  // namespace isthmus::router
