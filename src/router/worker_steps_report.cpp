// What the coordinator and people are told of a worker.

#include <fmt/format.h>

#include <utility>

#include "router/worker_steps.h"

namespace isthmus::router {

void WorkerSteps::report(Time now) {
  if (life_ >= Life::kReleased) return;
  protocol::Report report;
  report.session = context_.session;
  report.stage = context_.identity.stage;
  report.replica = context_.identity.replica;
  report.endpoints = endpoints_;
  report.version = loading_ > 0 || fetch_.restoring() ? protocol::kNoVersion : version_;
  report.step = context_.view.step;
  report.attempt = context_.view.attempt;
  report.epoch = context_.view.epoch;
  report.done = flow_.done();
  report.returned = returned_told_ = flow_.returned();
  if (const auto* sum = preparation_.ready()) {
    report.prepared_epoch = preparation_.epoch();
    report.norms = sum->norms;
    report.finite = sum->finite;
    report.sum_digest = sum->sum_digest;
  }
  for (const auto& [m, loss] : flow_.losses()) report.losses.push_back(loss);
  report.checkpointed = checkpointed_;
  report.weights = weights_;
  report.left = life_ == Life::kLeft;
  report.fault = fault_;
  report.warning = warning_;
  report.fetching = context_.live() ? "" : fetch_.news();
  report.unrecoverable = context_.live() ? "" : rebuild_.impossible();
  report.timeline = timeline_;
  report.unreachable = connections_.unreachable(now);
  if (context_.live())
    for (const SessionId session : exchange_.stalled(now)) report.unreachable.push_back(session);
  report.offences = exchange_.offences();
  report.stats = stats_;
  report.stats.service_us = flow_.load(now).service_us;
  report.stats.queued = flow_.schedule().queued();
  report.stats.waiting_for = waiting_for();
  report.device = context_.identity.device;
  report.link = probe_.figures();
  const bool empty_handed = flow_.empty() && flow_.done().size() == 0;
  if (is_leaving())
    report.leaving = going_         ? protocol::Leaving::kAtOnce
                     : empty_handed ? protocol::Leaving::kEmptyHanded
                                    : protocol::Leaving::kFinishing;
  context_.run(protocol::SendMessage{kCoordinator, std::move(report)});
  last_report_ = now;
  report_changed_ = false;
}

std::string WorkerSteps::waiting_for() const {
  if (running_ || preparation_.closing_alone() || saves_ > 0) return "";
  if (life_ != Life::kServing) return "the others to leave";
  if (loading_ > 0) return "its checkpoint";
  if (!context_.live()) {
    if (version_ + 1 >= context_.view.step.value) return "admission";
    return context_.own_stage().empty() ? rebuild_.progress() : fetch_.progress();
  }
  const auto& schedule = flow_.schedule();
  if (combination_.started()) return "its siblings' gradients";
  if (context_.syncs() && context_.view.preparing && !exchange_.complete()) return exchange_.waiting_for();
  if (preparation_.share_is_done()) return "the commit";
  if (schedule.waits_for_credit()) return "a credit: gradients of what is in flight";
  if (flow_.waits_for_tokens()) return "tokens from the coordinator";
  if (schedule.in_flight() > 0) return fmt::format("gradients from stage {}", context_.identity.stage.value + 1);
  if (context_.is_head()) return "its share of the step";
  return fmt::format("activations from stage {}", context_.identity.stage.value - 1);
}

std::vector<protocol::WorkerEffect> WorkerSteps::finish(Time now) {
  // Nobody has them until the coordinator hears of it.
  if (!(flow_.returned() == returned_told_)) {
    report_changed_ = true;
    last_report_ = Time{};
  }
  if (report_changed_ && (now - last_report_ >= kCoalesce || last_report_ == Time{})) report(now);
  for (const auto& effect : context_.effects)
    if (const auto* send = std::get_if<protocol::SendMessage>(&effect)) note_sent(send->message, now);
  return std::exchange(context_.effects, {});
}

// A piece of a snapshot was noted by who gave it.
void WorkerSteps::note_sent(const protocol::Message& message, Time now) {
  const auto* chunk = std::get_if<protocol::Chunk>(&message);
  if (chunk && chunk->piece.kind == protocol::PieceKind::kSnapshot) return;
  if (const auto* tensor = protocol::tensor_of(message)) context_.uplink.sent(tensor->bytes(), now);
}

}  // namespace isthmus::router
