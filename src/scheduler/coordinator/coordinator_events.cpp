// What people are told.

#include <utility>

#include "scheduler/coordinator/coordinator.h"

namespace isthmus::coordinator {

namespace {

constexpr std::size_t kRecentMax = 32;  // events that a status shows

}  // namespace

void Coordinator::happened(StepId step, Event event) {
  recent_.push_back({step, std::move(event)});
  if (recent_.size() > kRecentMax) recent_.pop_front();
  effects_.push_back(recent_.back());
}

void Coordinator::said(Event event) {
  const PeerId peer = peer_of(event);
  if (!event_budget_.takes(peer, liveness_.now())) return;
  if (const auto left_out = event_budget_.left_out(peer); left_out > 0)
    happened(events::Warning{peer, fmt::format("{} more events that it caused are left out", left_out)});
  happened(std::move(event));
}

}  // namespace isthmus::coordinator
