#include "transport/shaped_transport.h"

#include <algorithm>
#include <utility>

namespace isthmus::transport {

namespace {

// A CURVE message is 33 bytes longer than its content, ZMTP adds up to 9; a TCP segment of 1448 bytes takes 1514 on
// Ethernet.
constexpr double kMessageOverhead = 42;
constexpr double kSegmentShare = 1514.0 / 1448.0;

}  // namespace

ShapedTransport::ShapedTransport(Transport& inner, const LinkShape& shape)
    : inner_(inner), shape_(shape), random_(shape.seed, "link") {}

Duration ShapedTransport::transmit_time(const Frame& frame) const {
  const double bytes = (static_cast<double>(frame.bytes()) + kMessageOverhead) * kSegmentShare;
  return seconds(bytes * 8 / shape_.bits_per_second);
}

void ShapedTransport::send(Frame frame) {
  queued_bytes_ += frame.bytes();
  auto& queue = uplink_[static_cast<std::size_t>(frame.priority)];
  queue.push_back({std::move(frame), now_});
}

// Serves the uplink up to `now` on its own time line, so that a loop that wakes late loses no rate.
void ShapedTransport::move_uplink(Time now) {
  while (uplink_free_ <= now) {
    const auto queue = std::ranges::find_if(uplink_, [](const auto& q) { return !q.empty(); });
    if (queue == uplink_.end()) return;
    Waiting waiting = std::move(queue->front());
    queue->pop_front();
    const Duration transmit = transmit_time(waiting.frame);
    Time sent = std::max(uplink_free_, waiting.since) + transmit;
    Duration again{};
    while (shape_.loss > 0 && uniform() < shape_.loss) {
      sent += transmit;
      again += 2 * shape_.latency;
    }
    uplink_free_ = sent;
    Time due = sent + again + shape_.latency;
    if (shape_.jitter > Duration{}) due += seconds(uniform() * to_seconds(shape_.jitter));
    Time& last = last_due_[{waiting.frame.peer, waiting.frame.priority}];
    last = due = std::max(due, last);
    delayed_.emplace(due, std::move(waiting.frame));
  }
}

std::vector<TransportEvent> ShapedTransport::poll(Time now) {
  now_ = now;
  move_uplink(now);
  while (!delayed_.empty() && delayed_.begin()->first <= now) {
    auto frame = delayed_.extract(delayed_.begin());
    queued_bytes_ -= frame.mapped().bytes();
    inner_.send(std::move(frame.mapped()));
  }
  std::vector<TransportEvent> events;
  for (auto& event : inner_.poll(now)) {
    auto* received = std::get_if<FrameReceived>(&event);
    if (!received) {
      events.push_back(std::move(event));
      continue;
    }
    // The frame has been arriving for as long as it takes to transmit; only a busy downlink holds it back.
    const Duration transmit = transmit_time(received->frame);
    downlink_free_ = std::max(downlink_free_, now - transmit) + transmit;
    downlink_.emplace(downlink_free_, std::move(event));
  }
  while (!downlink_.empty() && downlink_.begin()->first <= now) {
    events.push_back(std::move(downlink_.begin()->second));
    downlink_.erase(downlink_.begin());
  }
  return events;
}

Time ShapedTransport::next_due() const {
  Time due = inner_.next_due();
  const bool waiting = std::ranges::any_of(uplink_, [](const auto& q) { return !q.empty(); });
  if (waiting) due = std::min(due, uplink_free_);
  if (!delayed_.empty()) due = std::min(due, delayed_.begin()->first);
  if (!downlink_.empty()) due = std::min(due, downlink_.begin()->first);
  return due;
}

std::uint64_t ShapedTransport::queued_bytes() const { return queued_bytes_ + inner_.queued_bytes(); }

}  // namespace isthmus::transport
