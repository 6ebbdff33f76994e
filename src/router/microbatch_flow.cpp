#include "router/microbatch_flow.h"

#include <algorithm>
#include <ranges>
#include <utility>

namespace isthmus {

namespace {

constexpr double kToldAnew = 2;  // times slower, or faster, than the others know
constexpr Duration kRetryMin = std::chrono::milliseconds(20);
constexpr Duration kRetryMax = seconds(1);

std::uint64_t to_us(double s) { return static_cast<std::uint64_t>(s * 1e6); }

}  // namespace

MicrobatchFlow::MicrobatchFlow(WorkerContext& context)
    : context_(context), schedule_(context.plan.schedule, context.stage_plan().credits), hops_(context.plan.routing, context.identity.replica) {}

void MicrobatchFlow::clear() {
  for (auto& [m, record] : records_) settle(record);
  records_.clear();
  tombs_.clear();
  losses_.clear();
  schedule_ = StageSchedule(context_.plan.schedule, context_.stage_plan().credits);
  done_ = DoneSet(context_.plan.count(context_.view.step));
  returned_ = DoneSet();
  pace_.forget_running();
  pace_due_ = kNever;
  slow_ = false;
}

void MicrobatchFlow::view_changed(bool epoch_changed, Time now) {
  for (const auto newcomer : hops_.set_members(context_.successors(), now))
    context_.send_to(newcomer, Probe{context_.tag_to(newcomer), static_cast<std::uint64_t>(now.count() / 1000)});
  create_head_records();
  if (epoch_changed) replace_lost_successors(now);
}

void MicrobatchFlow::create_head_records() {
  if (!context_.is_head()) return;
  returned_ = returned();
  for (std::uint32_t i = 0; i < context_.view.head_owner.size(); ++i) {
    const MicrobatchId m(i);
    if (context_.view.head_owner[i] != context_.session || records_.contains(m) || returned_.contains(m)) continue;
    records_[m].again = context_.view.head_again[i];
    schedule_.forward_ready(m, context_.training(m));
  }
}

// The successor of these records died or was expelled. This holds also if its gradient has arrived: its replacement
// needs the input for its own contribution.
void MicrobatchFlow::replace_lost_successors(Time now) {
  for (auto& [m, record] : records_) {
    if (record.successor != kNoSession && !context_.view.find(record.successor)) {
      settle(record);
      record.again = true;
      record.successor = kNoSession;
      record.confirmed = record.cancelling = record.too_late = false;
    }
    if (context_.is_tail() || !record.forward_done) continue;
    if (record.searching) {
      forward_if_nobody_holds(m, record, now);
      if (record.searching) ask(m, record, now);
    } else if (record.successor == kNoSession && record.retry_due == kNever) {
      send_forward(m, record, now);
    }
  }
}

// ------------------------------------------------------------------------------------------ from upstream

bool MicrobatchFlow::too_busy() const {
  if (context_.own_stage().size() < 2) return false;
  const auto waiting = std::ranges::count_if(records_, [](const auto& r) { return !r.second.forward_started; });
  return static_cast<std::uint32_t>(waiting) >= std::max(2u, context_.stage_plan().credits);
}

void MicrobatchFlow::received(const Forward& message, Time now) {
  const MicrobatchId m = message.microbatch;
  const SessionId from = message.tag.from;
  if (const auto tomb = tombs_.find({from, m}); tomb != tombs_.end() && message.n <= tomb->second) return;
  auto at = records_.find(m);
  if (at == records_.end()) {
    if (too_busy()) {
      tombs_[{from, m}] = message.n;
      context_.send_to(from, Busy{context_.tag_to(from), m, message.n, load(now)});
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

void MicrobatchFlow::received(const Ask& message, Time now) {
  const SessionId from = message.tag.from;
  const auto at = records_.find(message.microbatch);
  if (at == records_.end()) {
    const auto tomb = tombs_.find({from, message.microbatch});
    if (tomb != tombs_.end() && message.n <= tomb->second)
      context_.send_to(from, Cancelled{context_.tag_to(from), message.microbatch, message.n, load(now)});
    else
      context_.send_to(from, Free{context_.tag_to(from), message.microbatch, message.n});
    return;
  }
  at->second.predecessor = from;
  answer_holder(message.microbatch, message.n, at->second, from, now);
}

void MicrobatchFlow::received(const Cancel& message, Time now) {
  const MicrobatchId m = message.microbatch;
  const SessionId from = message.tag.from;
  const auto at = records_.find(m);
  if (at != records_.end()) {
    if (at->second.predecessor != from) return;
    if (at->second.forward_started || !schedule_.cancel_forward(m)) {
      context_.send_to(from, TooLate{context_.tag_to(from), m, message.n});
      return;
    }
    records_.erase(at);
  }
  auto& tomb = tombs_[{from, m}];
  tomb = std::max(tomb, message.n);
  context_.send_to(from, Cancelled{context_.tag_to(from), m, message.n, load(now)});
}

void MicrobatchFlow::answer_holder(MicrobatchId m, std::uint32_t n, const StepRecord& record, SessionId asker, Time now) {
  if (record.returned_ready)
    send_backward(m, record);
  else
    context_.send_to(asker, Held{context_.tag_to(asker), m, n, load(now)});
}

void MicrobatchFlow::received(const Probe& message, Time now) {
  context_.send_to(message.tag.from, Receipt{context_.tag_to(message.tag.from), message.sent_us, load(now)});
}

// What the device still has to do, by what each operation takes now.
Load MicrobatchFlow::load(Time now) const {
  const double f = pace_.seconds(Operation::kForward, now), i = pace_.seconds(Operation::kInputGradient, now);
  const double w = pace_.seconds(Operation::kWeightGradient, now);
  double backlog = 0;
  for (const auto& [m, record] : records_) {
    if (record.accumulated) continue;
    if (!record.forward_done) backlog += f;
    if (!context_.training(m)) continue;
    if (!record.returned_ready) backlog += i;
    backlog += w;
  }
  return {to_us(backlog), to_us(f + i + w), slow_};
}

// ------------------------------------------------------------------------------------------ its own pace

// Whoever gave this worker something need not hear of it for a while, and a head hears of nobody: so once it takes several times
// as long as the others know, or as short, it says so. A message for each change and predecessor, no more.
void MicrobatchFlow::watch_pace(Time now) {
  double known = 0, is = 0;
  for (const auto operation : {Operation::kForward, Operation::kInputGradient, Operation::kWeightGradient}) {
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
    if (record.predecessor != kNoSession && !(slow_ && record.forward_started)) predecessors.insert(record.predecessor);
  for (const SessionId session : predecessors) context_.send_to(session, Receipt{context_.tag_to(session), kUnasked, load(now)});
}

// What this head has not begun nobody has ever seen of it, so it can be any head's. It promises not to begin it: until a
// decision after this view says otherwise (View::dealt_again), that it is the owner says nothing.
void MicrobatchFlow::return_unbegun() {
  if (!context_.is_head() || context_.own_stage().size() < 2 || context_.plan.routing != Routing::kFinishTime) return;
  returned_ = returned();
  if (returned_.count() == 0) returned_ = DoneSet(context_.plan.count(context_.view.step));
  std::erase_if(records_, [&](const auto& entry) {
    if (entry.second.forward_started || !schedule_.cancel_forward(entry.first)) return false;
    returned_.insert(entry.first);
    return true;
  });
  if (returned_.size() == 0) returned_ = DoneSet();
  returned_at_ = context_.view.epoch;
}

DoneSet MicrobatchFlow::returned() const { return context_.view.dealt_again > returned_at_ ? DoneSet() : returned_; }

// ---------------------------------------------------------------------------------------- from downstream

StepRecord* MicrobatchFlow::answered(MicrobatchId m, std::uint32_t n) {
  const auto at = records_.find(m);
  return at == records_.end() || at->second.n != n ? nullptr : &at->second;
}

void MicrobatchFlow::received(const Held& message, Time now) {
  const SessionId from = message.tag.from;
  StepRecord* record = answered(message.microbatch, message.n);
  if (record && record->searching) {
    record->successor = from;
    record->searching = false;
  }
  if (record && record->successor == from) {
    if (!record->confirmed && record->in_flight > 0) hops_.measured(from, record->in_flight, now - record->sent_at);
    settle(*record);
    record->confirmed = true;
    record->ask_due = wants_answer(message.microbatch, *record) ? now + 4 * context_.identity.ask_after : kNever;
  }
  hops_.receipt(from, message.load, now);
  if (message.load.slow) take_back(from, now);
}

void MicrobatchFlow::received(const Receipt& message, Time now) {
  if (message.sent_us <= static_cast<std::uint64_t>(now.count() / 1000))
    hops_.measured(message.tag.from, 0, now - std::chrono::microseconds(message.sent_us));
  hops_.receipt(message.tag.from, message.load, now);
  if (message.load.slow) take_back(message.tag.from, now);
}

void MicrobatchFlow::received(const Free& message, Time now) {
  StepRecord* record = answered(message.microbatch, message.n);
  if (!record) return;
  if (record->searching) {
    record->answered_free.insert(message.tag.from);
    forward_if_nobody_holds(message.microbatch, *record, now);
  } else if (record->successor == message.tag.from && !record->cancelling) {
    resend_forward(message.microbatch, *record, now);
  }
}

void MicrobatchFlow::received(const Backward& message, Time) {
  const auto at = records_.find(message.microbatch);
  if (at == records_.end() || !context_.training(message.microbatch)) {
    ++refused_;
    return;
  }
  StepRecord& record = at->second;
  if (message.tag.from != record.successor && !record.searching) return;
  settle(record);
  record.successor = message.tag.from;
  record.confirmed = true;
  record.searching = record.cancelling = false;
  record.ask_due = kNever;
  if (!record.gradient_here) gradient_arrived(message.microbatch, record, message.tensor);
}

void MicrobatchFlow::received(const Cancelled& message, Time now) {
  hops_.receipt(message.tag.from, message.load, now);
  StepRecord* record = answered(message.microbatch, message.n);
  if (record && !record->searching && record->successor == message.tag.from)
    choose_another(message.microbatch, *record, message.tag.from, now);
  if (message.load.slow) take_back(message.tag.from, now);
}

void MicrobatchFlow::received(const Busy& message, Time now) {
  received(Cancelled{message.tag, message.microbatch, message.n, message.load}, now);
}

void MicrobatchFlow::received(const TooLate& message, Time) {
  StepRecord* record = answered(message.microbatch, message.n);
  if (!record || record->successor != message.tag.from) return;
  record->cancelling = false;
  record->too_late = true;
}

// ------------------------------------------------------------------------------------------ one microbatch

void MicrobatchFlow::forward_done(MicrobatchId m, StepRecord& record, const OperationDone& done, Time now) {
  record.forward_done = true;
  record.sent = done.tensor;
  for (const auto& loss : done.loss) losses_[m] = loss;
  if (context_.is_tail()) {
    if (context_.training(m)) gradient_arrived(m, record, {});
  } else if (record.again) {
    search(m, record, now);
  } else {
    send_forward(m, record, now);
  }
  if (!context_.training(m)) accumulated(m, record);
}

void MicrobatchFlow::gradient_arrived(MicrobatchId m, StepRecord& record, EncodedTensor gradient) {
  record.gradient_here = true;
  record.received = std::move(gradient);
  schedule_.gradient_ready(m);
}

void MicrobatchFlow::accumulated(MicrobatchId m, StepRecord& record) {
  record.accumulated = true;
  done_.insert(m);
}

std::vector<SessionId> MicrobatchFlow::suspected() const {
  std::vector<SessionId> sessions = context_.view.suspected;
  for (const Member* member : context_.successors())
    if (cut_.contains(member->peer)) sessions.push_back(member->session);
  return sessions;
}

void MicrobatchFlow::send_forward(MicrobatchId m, StepRecord& record, Time now, SessionId avoid) {
  record.searching = record.cancelling = record.too_late = record.confirmed = false;
  record.answered_free.clear();
  record.retry_due = kNever;
  const auto members = context_.next_stage(m);
  if (members.empty()) {
    record.successor = kNoSession;
    record.ask_due = kNever;
    return;  // the view that brings one comes back here
  }
  record.successor = hops_.choose(members, suspected(), record.sent.bytes(), now, avoid);
  ++record.n;
  hops_.charge(record.successor, record.sent.bytes(), now);
  record.in_flight = hops_.bytes_in_flight();
  record.sent_at = now;
  resend_forward(m, record, now);
}

void MicrobatchFlow::resend_forward(MicrobatchId m, StepRecord& record, Time now) {
  record.ask_due = now + context_.identity.ask_after;
  context_.send_to(record.successor, Forward{context_.tag_to(record.successor), m, record.n, record.again, record.sent});
}

// The successor has answered, or will not any more.
void MicrobatchFlow::settle(StepRecord& record) {
  if (record.in_flight == 0) return;
  hops_.confirmed(record.successor, record.sent.bytes());
  record.in_flight = 0;
}

// The successor does not hold the microbatch and never will under this n.
void MicrobatchFlow::choose_another(MicrobatchId m, StepRecord& record, SessionId refuser, Time now) {
  // What it said last of its work does not count a microbatch that it let go; one that was on its way was charged on top.
  if (record.in_flight > 0) hops_.give_back(refuser);
  settle(record);
  if (!record.cancelling) record.refused.insert(refuser);
  record.successor = kNoSession;
  record.cancelling = false;
  record.ask_due = kNever;
  const bool all_refused = std::ranges::all_of(context_.next_stage(m), [&](const Member* member) { return record.refused.contains(member->session); });
  if (!all_refused) {
    send_forward(m, record, now, refuser);
    return;
  }
  record.refused.clear();
  const Time soonest = hops_.finish(refuser, 0, now);
  record.retry_due = now + std::clamp<Duration>(soonest - now, kRetryMin, kRetryMax);
}

// A replica that got slow after it was chosen: another that would be done in half the time gets the microbatch, unless
// the forward pass has begun.
void MicrobatchFlow::cancel_if_slow(MicrobatchId m, StepRecord& record, Time now) {
  if (context_.plan.routing != Routing::kFinishTime) return;
  if (record.successor == kNoSession || record.searching || record.gradient_here || record.cancelling ||
      record.too_late || !context_.training(m) || now - record.sent_at < 2 * context_.identity.ask_after)
    return;
  const auto members = context_.next_stage(m);
  if (members.size() < 2 || !context_.view.find(record.successor)) return;
  const SessionId other = hops_.choose(members, suspected(), record.sent.bytes(), now, record.successor);
  const Duration here = hops_.finish(record.successor, 0, now) - now;
  const Duration there = hops_.finish(other, record.sent.bytes(), now) - now;
  if (2 * there >= here) return;
  record.cancelling = true;
  context_.send_to(record.successor, Cancel{context_.tag_to(record.successor), m, record.n});
}

// A successor became several times slower: what it has not begun, the last first, goes to whoever would be done with it sooner,
// the way there and back included. It says itself what it has begun (TooLate).
void MicrobatchFlow::take_back(SessionId from, Time now) {
  if (context_.plan.routing != Routing::kFinishTime || !context_.view.find(from)) return;
  HopChoice then = hops_;  // as things will be once all of that has gone elsewhere
  for (auto& [m, record] : records_ | std::views::reverse) {
    if (record.successor != from || record.searching || record.gradient_here || record.too_late) continue;
    const auto members = context_.next_stage(m);
    if (members.size() < 2) continue;
    const SessionId other = then.choose(members, suspected(), record.sent.bytes(), now, from);
    const Time here = then.finish(from, 0, now) - then.service(from), there = then.finish(other, record.sent.bytes(), now) + then.round_trip(from);
    if (!record.cancelling && (other == from || there >= here)) return;
    then.give_back(from);
    then.charge(other, record.sent.bytes(), now);
    if (record.cancelling) continue;
    record.cancelling = true;
    ask(m, record, now);
  }
}

void MicrobatchFlow::search(MicrobatchId m, StepRecord& record, Time now) {
  if (!record.searching) {
    record.searching = true;
    record.answered_free.clear();
    ++record.n;
  }
  ask(m, record, now);
}

// Free is a promise: its sender refuses from now on what a dead holder may still have in flight. So if every live
// member of the next stage has given it, the microbatch can go to any of them.
void MicrobatchFlow::forward_if_nobody_holds(MicrobatchId m, StepRecord& record, Time now) {
  const auto members = context_.next_stage(m);
  const bool nobody = !members.empty() && std::ranges::all_of(members, [&](const Member* member) {
    return record.answered_free.contains(member->session);
  });
  if (nobody) send_forward(m, record, now);
}

void MicrobatchFlow::send_backward(MicrobatchId m, const StepRecord& record) {
  const SessionId to = record.predecessor;
  context_.send_to(to, Backward{context_.tag_to(to), m, record.returned});
}

bool MicrobatchFlow::wants_answer(MicrobatchId m, const StepRecord& record) const {
  if (context_.is_tail() || !record.forward_done) return false;
  if (record.searching) return true;
  if (record.successor == kNoSession) return false;
  return record.cancelling || !record.confirmed || (context_.training(m) && !record.gradient_here);
}

void MicrobatchFlow::ask(MicrobatchId m, StepRecord& record, Time now) {
  record.ask_due = now + context_.identity.ask_after;
  if (record.searching) {
    for (const Member* member : context_.next_stage(m))
      if (!record.answered_free.contains(member->session))
        context_.send_to(member->session, Ask{context_.tag_to(member->session), m, record.n});
  } else if (record.cancelling) {
    context_.send_to(record.successor, Cancel{context_.tag_to(record.successor), m, record.n});
  } else {
    context_.send_to(record.successor, Ask{context_.tag_to(record.successor), m, record.n});
  }
}

// ------------------------------------------------------------------------------------------ the device

std::optional<RunOperation> MicrobatchFlow::next(Time now) {
  const auto task = schedule_.next();
  if (!task) return std::nullopt;
  StepRecord& record = records_.at(task->microbatch);
  RunOperation run{context_.job_tag(), *task, context_.training(task->microbatch), {}};
  if (task->operation == Operation::kForward) {
    record.forward_started = true;
    run.tensor = record.input;
  }
  if (task->operation == Operation::kInputGradient) run.tensor = record.received;
  pace_.began(task->operation, now);
  pace_due_ = pace_.next_due(now);
  return run;
}

void MicrobatchFlow::operation_done(const OperationDone& done, Time now) {
  const MicrobatchId m = done.task.microbatch;
  // What else the device did in between, an update for a sync for instance, says nothing about the next microbatch.
  pace_due_ = kNever;
  pace_.ended(done.task.operation, done.took > Duration{} ? done.took : now - pace_.running_since());
  const auto at = records_.find(m);
  if (at == records_.end()) return;
  StepRecord& record = at->second;
  switch (done.task.operation) {
    case Operation::kForward:
      forward_done(m, record, done, now);
      break;
    case Operation::kInputGradient:
      record.returned = done.tensor;
      record.returned_ready = true;
      schedule_.input_gradient_done(m);
      if (!context_.is_head()) send_backward(m, record);
      break;
    case Operation::kWeightGradient:
      accumulated(m, record);
      break;
  }
  watch_pace(now);
}

// ---------------------------------------------------------------------------------------------- timers

void MicrobatchFlow::peer_connected(PeerId peer, Time now) {
  cut_.erase(peer);
  for (auto& [m, record] : records_) {
    if (!wants_answer(m, record)) continue;
    const Member* member = context_.view.find(record.successor);
    if (record.searching || (member && member->peer == peer)) ask(m, record, now);
  }
}

void MicrobatchFlow::peer_lost(PeerId peer) { cut_.insert(peer); }
void MicrobatchFlow::peer_heard(PeerId peer) { cut_.erase(peer); }

void MicrobatchFlow::tick(Time now) {
  if (pace_due_ <= now) {
    watch_pace(now);
    pace_due_ = pace_.next_due(now);
  }
  for (auto& [m, record] : records_) {
    if (record.retry_due <= now) send_forward(m, record, now);
    if (record.ask_due > now) continue;
    if (wants_answer(m, record)) {
      cancel_if_slow(m, record, now);
      ask(m, record, now);
    } else {
      record.ask_due = kNever;
    }
  }
}

Time MicrobatchFlow::next_due() const {
  Time due = pace_due_;
  for (const auto& [m, record] : records_) due = std::min({due, record.ask_due, record.retry_due});
  return due;
}

std::uint64_t MicrobatchFlow::custody_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& [m, record] : records_)
    bytes += record.input.bytes() + record.sent.bytes() + record.received.bytes() + record.returned.bytes();
  return bytes;
}

}  // namespace isthmus
