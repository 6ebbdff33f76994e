#pragma once

#include <array>
#include <optional>

#include "base/time.h"
#include "protocol/stage_schedule.h"

namespace isthmus::router {

// How long each operation takes on this worker's device: moving averages, which follow at once when the device becomes
// several times slower or faster, and which one operation that takes longer than usual hardly moves. Two in a row that
// take 2.5 times as long are no accident, and the second need not have ended: it counts for as long as it has been
// running. Pure; one thread.
class DevicePace {
 public:
  // One at a time.
  void began(protocol::Operation operation, Time now);
  // `took`: on the device, without what else it did in between.
  void ended(protocol::Operation operation, Duration took);
  // The operation that runs is nobody's any more. The next one may wait for the device to do something else, an
  // optimizer's step for instance, so it is no second one.
  void forget_running();
  Time running_since() const { return running_ ? running_->since : Time{}; }

  // Of one operation, as things are now; 0: it has done none yet.
  double seconds(protocol::Operation operation, Time now) const;
  // All three.
  double service(Time now) const;
  // When the running operation, if it still runs then, says something new; kNever: it does not, or none runs.
  Time next_due(Time now) const;

 private:
  struct Kind {
    double average = 0;          // seconds
    std::optional<double> fast;  // the last one, if it was far below the average
  };
  struct Running {
    protocol::Operation operation;
    Time since;
  };
  // How many times longer than usual the running operation shows everything to take; 1: nothing unusual.
  double factor(Time now) const;
  const Kind& kind(protocol::Operation operation) const { return kinds_[static_cast<std::size_t>(operation)]; }

  std::array<Kind, 3> kinds_;
  std::optional<double> slow_;  // how many times longer than usual the last operation took, if that is conspicuous
  std::optional<Running> running_;
};

}  // namespace isthmus::router
