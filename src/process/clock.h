#pragma once

#include <time.h>

#include "base/time.h"

namespace isthmus::process {

// The machine's monotonic clock: processes of one machine share its origin, so their traces fit together.
inline Time monotonic_now() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

// Processor time of all threads of this process: what its arithmetic takes, however many others share the cores.
inline Duration processor_time() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

}  // namespace isthmus::process
