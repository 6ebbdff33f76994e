#pragma once

#include <time.h>

#include <chrono>
#include <cstdint>

#include "base/time.h"

namespace isthmus::process {

// The machine's clock since it was started, which goes on while it sleeps: a laptop that was closed for an hour knows
// that everybody has given it up. Processes of one machine share its origin, so their traces fit together.
inline Time monotonic_now() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

// Processor time of all threads of this process: what its arithmetic takes, however many others share the cores.
inline Duration processor_time() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

// What people call the time.
inline std::uint64_t microseconds_since_1970() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
}
inline std::uint64_t seconds_since_1970() { return microseconds_since_1970() / 1'000'000; }

}  // namespace isthmus::process
