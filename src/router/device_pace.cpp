#include "router/device_pace.h"

#include <algorithm>

namespace isthmus::router {

namespace {

constexpr double kAverage = 0.1;  // weight of a new sample (SWARM)
constexpr double kConspicuous = 2.5;

}  // namespace

void DevicePace::began(protocol::Operation operation, Time now) { running_ = Running{operation, now}; }

void DevicePace::ended(protocol::Operation operation, Duration took) {
  running_.reset();
  Kind& kind = kinds_[static_cast<std::size_t>(operation)];
  const double sample = to_seconds(took);
  if (kind.average == 0) {
    kind.average = sample;
    return;
  }
  const double ratio = sample / kind.average;
  const bool slow = ratio >= kConspicuous, fast = ratio <= 1 / kConspicuous;
  if (slow && slow_) {
    // Whatever slows the device down slows everything down.
    const double times = std::min(ratio, *slow_);
    for (auto& k : kinds_) k.average *= times;
    slow_.reset();
  } else if (fast && kind.fast) {
    // By itself: the first operation of a kind is often a slow one, and says nothing about the other kinds.
    kind.average = std::max(sample, *kind.fast);
    kind.fast.reset();
    slow_.reset();
  } else {
    kind.average +=
        kAverage * (std::clamp(sample, kind.average / kConspicuous, kind.average * kConspicuous) - kind.average);
    slow_ = slow ? std::optional(ratio) : std::nullopt;
    kind.fast = fast ? std::optional(sample) : std::nullopt;
  }
}

void DevicePace::forget_running() {
  running_.reset();
  slow_.reset();
}

double DevicePace::factor(Time now) const {
  if (!running_ || !slow_) return 1;
  const double usual = kind(running_->operation).average;
  if (usual == 0) return 1;
  const double ratio = to_seconds(now - running_->since) / usual;
  return ratio >= kConspicuous ? std::max(ratio, *slow_) : 1;
}

double DevicePace::seconds(protocol::Operation operation, Time now) const {
  return kind(operation).average * factor(now);
}

double DevicePace::service(Time now) const {
  double all = 0;
  for (const auto& k : kinds_) all += k.average;
  return all * factor(now);
}

Time DevicePace::next_due(Time now) const {
  if (!running_ || !slow_) return kNever;
  const double usual = kind(running_->operation).average;
  if (usual == 0) return kNever;
  // Every time that it has taken twice as long.
  double at = kConspicuous;
  while (running_->since + isthmus::seconds(at * usual) <= now) at *= 2;
  // A nanosecond later, so that rounding does not make it less than that.
  return running_->since + isthmus::seconds(at * usual) + Duration(1);
}

}  // namespace isthmus::router
