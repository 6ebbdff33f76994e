#include "router/worker_steps.h"

#include <algorithm>
#include <utility>

namespace isthmus {

namespace {

constexpr Duration kHeartbeat = std::chrono::milliseconds(250);
constexpr Duration kCoalesce = std::chrono::milliseconds(100);
// A neighbour may be a step ahead of our view by all it can have in flight, and not more.
constexpr std::size_t kHeldPerMicrobatch = 4;

}  // namespace

WorkerSteps::WorkerSteps(const Plan& plan, Identity identity, std::uint64_t version,
                         std::uint64_t session_seed)
    : plan_(plan),
      identity_(std::move(identity)),
      session_source_(session_seed, "session"),
      version_(version),
      checkpointed_(version),
      save_started_(version),
      schedule_(plan.schedule, plan.stages[identity_.stage.value].credits) {
  new_session();
}

void WorkerSteps::new_session() {
  do session_ = SessionId(session_source_.bits(sessions_drawn_++));
  while (session_ == kNoSession);
}

StepTag WorkerSteps::tag_to(SessionId to) const {
  return {session_, to, view_.epoch, view_.step, view_.attempt};
}

std::vector<const Member*> WorkerSteps::next_stage() const {
  std::vector<const Member*> members;
  for (const auto& member : view_.live)
    if (member.stage.value == identity_.stage.value + 1) members.push_back(&member);
  return members;
}

void WorkerSteps::send_to(SessionId to, Message message) {
  if (const Member* member = view_.find(to))
    effects_.push_back(SendMessage{member->peer, std::move(message)});
}

std::vector<WorkerEffect> WorkerSteps::finish(Time now) {
  if (report_changed_ && (now - last_report_ >= kCoalesce || last_report_ == Time{})) report(now);
  return std::exchange(effects_, {});
}

// ---------------------------------------------------------------------------------------------- views

std::vector<WorkerEffect> WorkerSteps::view_received(const View& view, Time now) {
  if (view.epoch >= view_.epoch && !gone_) adopt(view, now);
  return finish(now);
}

void WorkerSteps::adopt(const View& view, Time now) {
  const bool was_live = live();
  if (view.last_commit && view.last_commit->step.value == version_ + 1 && prepared_ &&
      prepared_epoch_ == view.last_commit->epoch)
    apply_commit(*view.last_commit);
  if (view.step.value <= version_) return;  // older than the weights this worker holds

  const bool epoch_changed = view.epoch != view_.epoch;
  const bool step_changed = view.step != view_.step || view.attempt != view_.attempt;
  const bool members_changed = view.live != view_.live;
  view_ = view;
  if (members_changed) effects_.push_back(KnowMembers{view_.live});
  if (step_changed) clear_step(!records_.empty() || prepared_);

  if (view_.phase != Phase::kRunning) {
    leave_phase(now);
    return;
  }
  if (!live()) {
    if (was_live || view_.last_session == session_) {
      // Expelled: whatever this life added to the step counts for nothing, and it must never be taken for the next.
      clear_step(true);
      new_session();
    }
    report(now);
    return;
  }
  create_head_records();
  if (epoch_changed) replace_lost_successors(now);
  prepare_if_complete();
  release_held(now);
  run_next();
}

void WorkerSteps::apply_commit(const Commit& commit) {
  effects_.push_back(RunApply{commit});
  ++version_;
  clear_step(false);
  if (plan_.checkpoint_every != 0 && version_ % plan_.checkpoint_every == 0 &&
      version_ <= plan_.steps)
    save(version_);
}

void WorkerSteps::save(std::uint64_t version) {
  if (version <= save_started_) return;
  save_started_ = version;
  effects_.push_back(RunSave{version});
  ++saves_;
}

void WorkerSteps::clear_step(bool drop_accumulator) {
  if (drop_accumulator) effects_.push_back(RunDropStep{});
  records_.clear();
  losses_.clear();
  schedule_ = StageSchedule(plan_.schedule, plan_.stages[identity_.stage.value].credits);
  done_ = DoneSet(plan_.count(view_.step));
  prepared_.reset();
  prepared_epoch_ = EpochId(0);
  report_changed_ = true;
}

void WorkerSteps::leave_phase(Time now) {
  if (!leaving_) {
    leaving_ = true;
    clear_step(true);
    const std::uint64_t trained = std::min(version_, plan_.steps);
    if (fault_.empty()) save(trained);
    if (view_.phase == Phase::kFinished) effects_.push_back(RunDigests{});
  }
  left_ = saves_ == 0 && (view_.phase == Phase::kStopping || digests_here_);
  if (left_) report(now);
}

void WorkerSteps::create_head_records() {
  if (!is_head()) return;
  for (std::uint32_t i = 0; i < view_.head_owner.size(); ++i) {
    const MicrobatchId m(i);
    if (view_.head_owner[i] != session_ || records_.contains(m)) continue;
    records_[m].again = view_.head_again[i];
    schedule_.forward_ready(m, training(m));
  }
}

// The successor of these records died or was expelled. This holds also if its gradient has arrived: its replacement
// needs the input for its own contribution.
void WorkerSteps::replace_lost_successors(Time now) {
  for (auto& [m, record] : records_) {
    if (record.successor != kNoSession && !view_.find(record.successor)) {
      record.again = true;
      record.successor = kNoSession;
      record.confirmed = false;
    }
    if (is_tail() || !record.forward_done) continue;
    if (record.searching) {
      forward_if_nobody_holds(m, record, now);
      if (record.searching) ask(m, record, now);
    } else if (record.successor == kNoSession) {
      send_forward(m, record, now);
    }
  }
}

// The only live replica of a stage needs nobody to combine with, so its sum is the stage's as soon as its own done
// set is full; waiting for the coordinator to say so would cost a round trip a step.
void WorkerSteps::prepare_if_complete() {
  if (!live() || !done_.full() || preparing_) return;
  const auto siblings = std::ranges::count(view_.live, identity_.stage, &Member::stage);
  if (siblings != 1) return;
  if (!prepared_) {
    preparing_ = true;
    effects_.push_back(RunPrepare{job_tag(), view_.epoch});
  } else if (prepared_epoch_ != view_.epoch) {
    prepared_epoch_ = view_.epoch;
    last_report_ = Time{};  // at once: everybody waits for it
    report_changed_ = true;
  }
}

void WorkerSteps::release_held(Time now) {
  auto waiting = std::exchange(held_, {});
  for (auto& held : waiting) dispatch(held.from, held.message, now);
}

// ------------------------------------------------------------------------------------------- messages

std::vector<WorkerEffect> WorkerSteps::message_received(PeerId from, Message message, Time now) {
  dispatch(from, message, now);
  run_next();
  return finish(now);
}

std::optional<std::string> WorkerSteps::fence(PeerId from, const StepTag& tag, bool& hold) const {
  hold = false;
  if (tag.to != session_) return "it is for another life of this worker";
  if (std::pair(tag.step, tag.attempt) < std::pair(view_.step, view_.attempt))
    return "its step is over";
  if (tag.epoch > view_.epoch || std::pair(tag.step, tag.attempt) > std::pair(view_.step, view_.attempt)) {
    hold = true;
    return std::nullopt;
  }
  if (!live()) return "this worker is not a member";
  const Member* sender = view_.find(tag.from);
  if (!sender) return "its sender is not a member";
  if (sender->peer != from) return "its sender claims another's session";
  return std::nullopt;
}

void WorkerSteps::dispatch(PeerId from, const Message& message, Time now) {
  std::visit(
      [&](const auto& body) {
        using Body = std::decay_t<decltype(body)>;
        if constexpr (std::is_same_v<Body, View> || std::is_same_v<Body, Report>) {
          refuse();  // not between workers
        } else {
          bool hold = false;
          if (fence(from, body.tag, hold)) return refuse();
          if (hold) {
            const std::size_t room = kHeldPerMicrobatch * (plan_.microbatches + plan_.evaluation_microbatches + 1);
            if (held_.size() >= room) return refuse();  // the sender will ask again
            held_.push_back({from, message});
            return;
          }
          if (body.microbatch.value >= plan_.count(view_.step)) return refuse();
          const auto sender_stage = view_.find(body.tag.from)->stage.value;
          constexpr bool downward = std::is_same_v<Body, Forward> || std::is_same_v<Body, Ask>;
          if (downward ? sender_stage + 1 != identity_.stage.value
                       : sender_stage != identity_.stage.value + 1)
            return refuse();
          handle(from, body, now);
        }
      },
      message);
}

void WorkerSteps::handle(PeerId, const Forward& message, Time) {
  const MicrobatchId m = message.microbatch;
  auto [at, fresh] = records_.try_emplace(m);
  StepRecord& record = at->second;
  record.predecessor = message.tag.from;  // always the latest live asker
  if (fresh) {
    record.input = message.tensor;
    record.again = message.again;
    schedule_.forward_ready(m, training(m));
  }
  answer_holder(m, message.n, record, message.tag.from);
}

void WorkerSteps::handle(PeerId, const Ask& message, Time) {
  const auto at = records_.find(message.microbatch);
  if (at == records_.end()) {
    send_to(message.tag.from, Free{tag_to(message.tag.from), message.microbatch, message.n});
    return;
  }
  at->second.predecessor = message.tag.from;
  answer_holder(message.microbatch, message.n, at->second, message.tag.from);
}

void WorkerSteps::answer_holder(MicrobatchId m, std::uint32_t n, const StepRecord& record,
                                SessionId asker) {
  if (record.returned_ready)
    send_backward(m, record);
  else
    send_to(asker, Held{tag_to(asker), m, n});
}

void WorkerSteps::handle(PeerId, const Held& message, Time now) {
  const auto at = records_.find(message.microbatch);
  if (at == records_.end() || at->second.n != message.n) return;
  StepRecord& record = at->second;
  if (record.searching) {
    record.successor = message.tag.from;
    record.searching = false;
  }
  if (record.successor != message.tag.from) return;
  record.confirmed = true;
  record.ask_due = wants_answer(message.microbatch, record) ? now + 4 * identity_.ask_after : kNever;
}

void WorkerSteps::handle(PeerId, const Free& message, Time now) {
  const auto at = records_.find(message.microbatch);
  if (at == records_.end() || at->second.n != message.n) return;
  StepRecord& record = at->second;
  if (record.searching) {
    record.answered_free.insert(message.tag.from);
    forward_if_nobody_holds(message.microbatch, record, now);
  } else if (record.successor == message.tag.from) {
    resend_forward(message.microbatch, record, now);
  }
}

void WorkerSteps::handle(PeerId, const Backward& message, Time) {
  const auto at = records_.find(message.microbatch);
  if (at == records_.end() || !training(message.microbatch)) return refuse();
  StepRecord& record = at->second;
  if (message.tag.from != record.successor && !record.searching) return;
  record.successor = message.tag.from;
  record.confirmed = true;
  record.searching = false;
  record.ask_due = kNever;
  if (!record.gradient_here) gradient_arrived(message.microbatch, record, message.tensor);
}

// ---------------------------------------------------------------------------------- one microbatch

void WorkerSteps::forward_done(MicrobatchId m, StepRecord& record, const OperationDone& done,
                               Time now) {
  record.forward_done = true;
  record.sent = done.tensor;
  for (const auto& loss : done.loss) losses_[m] = loss;
  if (is_tail()) {
    if (training(m)) gradient_arrived(m, record, {});
  } else if (record.again) {
    search(m, record, now);
  } else {
    send_forward(m, record, now);
  }
  if (!training(m)) accumulated(m, record, now);
}

void WorkerSteps::gradient_arrived(MicrobatchId m, StepRecord& record, EncodedTensor gradient) {
  record.gradient_here = true;
  record.received = std::move(gradient);
  schedule_.gradient_ready(m);
}

void WorkerSteps::accumulated(MicrobatchId m, StepRecord& record, Time) {
  record.accumulated = true;
  done_.insert(m);
  report_changed_ = true;
  prepare_if_complete();
}

void WorkerSteps::send_forward(MicrobatchId m, StepRecord& record, Time now) {
  record.searching = false;
  record.answered_free.clear();
  const auto members = next_stage();
  if (members.empty()) {
    record.successor = kNoSession;
    return;  // the view that brings one comes back here
  }
  const auto load = [&](const Member* member) {
    return std::ranges::count_if(records_, [&](const auto& entry) {
      return entry.second.successor == member->session && !entry.second.gradient_here;
    });
  };
  record.successor = (*std::ranges::min_element(members, {}, load))->session;
  ++record.n;
  record.confirmed = false;
  resend_forward(m, record, now);
}

void WorkerSteps::resend_forward(MicrobatchId m, StepRecord& record, Time now) {
  record.ask_due = now + identity_.ask_after;
  send_to(record.successor,
          Forward{tag_to(record.successor), m, record.n, record.again, record.sent});
}

void WorkerSteps::search(MicrobatchId m, StepRecord& record, Time now) {
  if (!record.searching) {
    record.searching = true;
    record.answered_free.clear();
    ++record.n;
  }
  ask(m, record, now);
}

// Free is a promise: its sender refuses from now on what a dead holder may still have in flight. So if every live
// member of the next stage has given it, the microbatch can go to any of them.
void WorkerSteps::forward_if_nobody_holds(MicrobatchId m, StepRecord& record, Time now) {
  const auto members = next_stage();
  const bool nobody = !members.empty() && std::ranges::all_of(members, [&](const Member* member) {
    return record.answered_free.contains(member->session);
  });
  if (nobody) send_forward(m, record, now);
}

void WorkerSteps::send_backward(MicrobatchId m, const StepRecord& record) {
  const SessionId to = record.predecessor;
  send_to(to, Backward{tag_to(to), m, record.returned});
}

bool WorkerSteps::wants_answer(MicrobatchId m, const StepRecord& record) const {
  if (is_tail() || !record.forward_done) return false;
  if (record.searching) return true;
  if (record.successor == kNoSession) return false;
  return !record.confirmed || (training(m) && !record.gradient_here);
}

void WorkerSteps::ask(MicrobatchId m, StepRecord& record, Time now) {
  record.ask_due = now + identity_.ask_after;
  if (record.searching) {
    for (const Member* member : next_stage())
      if (!record.answered_free.contains(member->session))
        send_to(member->session, Ask{tag_to(member->session), m, record.n});
  } else {
    send_to(record.successor, Ask{tag_to(record.successor), m, record.n});
  }
}

// ------------------------------------------------------------------------------------------ the device

void WorkerSteps::run_next() {
  if (device_busy_ || leaving_ || !live()) return;
  const auto task = schedule_.next();
  if (!task) return;
  device_busy_ = true;
  const StepRecord& record = records_.at(task->microbatch);
  RunOperation run{job_tag(), *task, training(task->microbatch), {}};
  if (task->operation == Operation::kForward) run.tensor = record.input;
  if (task->operation == Operation::kInputGradient) run.tensor = record.received;
  effects_.push_back(std::move(run));
}

std::vector<WorkerEffect> WorkerSteps::job_done(JobResult result, Time now) {
  if (const auto* operation = std::get_if<OperationDone>(&result)) {
    device_busy_ = false;
    operation_done(*operation, now);
  } else if (auto* prepared = std::get_if<PrepareDone>(&result)) {
    preparing_ = false;
    if (prepared->tag == job_tag() && done_.full()) prepared_ = std::move(*prepared);
    prepare_if_complete();
  } else if (const auto* save = std::get_if<SaveDone>(&result)) {
    --saves_;
    if (save->error.empty())
      checkpointed_ = std::max(checkpointed_, save->version);
    else
      fault_ = save->error;
    report_changed_ = true;
    last_report_ = Time{};
  } else if (auto* digests = std::get_if<DigestsDone>(&result)) {
    weights_ = std::move(digests->weights);
    digests_here_ = true;
  }
  if (leaving_) leave_phase(now);
  run_next();
  return finish(now);
}

void WorkerSteps::operation_done(const OperationDone& done, Time now) {
  if (done.tag != job_tag() || leaving_) return;
  if (!done.error.empty()) {
    fault_ = done.error;
    report(now);
    return;
  }
  const MicrobatchId m = done.task.microbatch;
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
      if (!is_head()) send_backward(m, record);
      break;
    case Operation::kWeightGradient:
      accumulated(m, record, now);
      break;
  }
}

// ---------------------------------------------------------------------------------------------- timers

std::vector<WorkerEffect> WorkerSteps::peer_connected(PeerId peer, Time now) {
  for (auto& [m, record] : records_) {
    if (!wants_answer(m, record)) continue;
    const Member* member = view_.find(record.successor);
    if (record.searching || (member && member->peer == peer)) ask(m, record, now);
  }
  if (peer == kCoordinator) report(now);
  return finish(now);
}

std::vector<WorkerEffect> WorkerSteps::coordinator_lost(Time now) {
  if (left_ && !gone_) {
    gone_ = true;
    effects_.push_back(Leave{view_.reason});
  }
  return finish(now);
}

std::vector<WorkerEffect> WorkerSteps::tick(Time now) {
  for (auto& [m, record] : records_)
    if (record.ask_due <= now) {
      if (wants_answer(m, record))
        ask(m, record, now);
      else
        record.ask_due = kNever;
    }
  if (now - last_report_ >= kHeartbeat) report(now);
  return finish(now);
}

Time WorkerSteps::next_due() const {
  Time due = last_report_ + (report_changed_ ? kCoalesce : kHeartbeat);
  for (const auto& [m, record] : records_) due = std::min(due, record.ask_due);
  return due;
}

void WorkerSteps::report(Time now) {
  if (gone_) return;
  Report report;
  report.session = session_;
  report.stage = identity_.stage;
  report.replica = identity_.replica;
  report.endpoints = identity_.endpoints;
  report.version = version_;
  report.step = view_.step;
  report.attempt = view_.attempt;
  report.done = done_;
  if (prepared_ && prepared_epoch_ != EpochId(0)) {
    report.prepared_epoch = prepared_epoch_;
    report.norms = prepared_->norms;
    report.finite = prepared_->finite;
    report.sum_digest = prepared_->sum_digest;
  }
  for (const auto& [m, loss] : losses_) report.losses.push_back(loss);
  report.checkpointed = checkpointed_;
  report.weights = weights_;
  report.left = left_;
  report.fault = fault_;
  report.stats = stats_;
  report.stats.queued = schedule_.queued();
  report.stats.waiting_for = waiting_for();
  effects_.push_back(SendMessage{kCoordinator, std::move(report)});
  last_report_ = now;
  report_changed_ = false;
}

std::string WorkerSteps::waiting_for() const {
  if (device_busy_ || preparing_) return "";
  if (saves_ > 0) return "";
  if (leaving_) return "the others to leave";
  if (!live()) return "admission";
  if (done_.full()) return "the commit";
  if (schedule_.waits_for_credit()) return "a credit: gradients of what is in flight";
  if (schedule_.in_flight() > 0)
    return fmt::format("gradients from stage {}", identity_.stage.value + 1);
  if (is_head()) return "its share of the step";
  return fmt::format("activations from stage {}", identity_.stage.value - 1);
}

std::uint64_t WorkerSteps::custody_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& [m, record] : records_)
    bytes += record.input.bytes() + record.sent.bytes() + record.received.bytes() +
             record.returned.bytes();
  return bytes;
}

}  // namespace isthmus
