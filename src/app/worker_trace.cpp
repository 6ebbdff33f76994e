#include "app/worker_trace.h"

#include <fmt/format.h>

namespace isthmus::app {

void WorkerTrace::note_message(const char* lane, const protocol::Message& message, Time now) {
  if (!on_ || protocol::traffic_of(message) != protocol::Traffic::kBoundary) return;
  const auto* forward = std::get_if<protocol::Forward>(&message);
  const MicrobatchId m = forward ? forward->microbatch : std::get<protocol::Backward>(message).microbatch;
  trace_.span(lane, fmt::format("{} {}", forward ? "activation" : "gradient", m), now, now);
}

void WorkerTrace::note_wait(const std::string& reason, Time now) {
  if (!on_ || reason == waits_for_) return;
  if (!waits_for_.empty()) trace_.span("wait", waits_for_, waits_since_, now);
  waits_for_ = reason;
  waits_since_ = now;
}

Status WorkerTrace::write(const std::string& path, PeerId worker, StageId stage) const {
  return on_ ? trace_.write(path, worker, stage) : Status();
}

}  // namespace isthmus::app
