#pragma once

#include <chrono>

namespace isthmus {

using Duration = std::chrono::nanoseconds;
// Time since an origin of the owner's choice (process start, or 0 in simulation). State machines get it passed in;
// only src/app reads a clock.
using Time = std::chrono::nanoseconds;

inline constexpr Time kNever = Time::max();

constexpr Duration seconds(double s) {
  return Duration(static_cast<Duration::rep>(s * 1e9));
}
constexpr double to_seconds(Duration d) { return static_cast<double>(d.count()) * 1e-9; }

}  // namespace isthmus
