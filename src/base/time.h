#pragma once

#include <chrono>

namespace isthmus {

using Duration = std::chrono::nanoseconds;
// Time since an origin of the owner's choice (process start, or 0 in simulation). State machines get it passed in;
// only src/app reads a clock.
using Time = std::chrono::nanoseconds;

inline constexpr Time kNever = Time::max();

// Saturates at 73 years, also for what is no number: a few such may still be added up. What comes from a file is
// checked to be far below.
constexpr Duration seconds(double s) {
  constexpr double kMost = 0x1p61 * 1e-9;
  if (!(s < kMost)) return Duration(Duration::rep{1} << 61);
  return Duration(static_cast<Duration::rep>((s > -kMost ? s : -kMost) * 1e9));
}
constexpr double to_seconds(Duration d) { return static_cast<double>(d.count()) * 1e-9; }

}  // namespace isthmus
