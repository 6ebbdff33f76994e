#pragma once

#include <cstdint>

namespace isthmus::lab {

struct CoordinatorBenchOptions {
  std::uint32_t workers = 10'000;
  std::uint32_t stages = 100;
  std::uint32_t microbatches = 2'000;
  std::uint32_t steps = 3;
  double step_seconds = 10;
};

// Per committed step, but for the last lines. Milliseconds are of one core; bytes are those of frames.
struct CoordinatorFigures {
  double step_seconds = 0;  // between commits
  double logic_ms = 0;      // the state machine
  double decode_ms = 0;     // of Reports
  double encode_ms = 0;     // of Views
  double reports = 0, report_bytes = 0;
  double views = 0, view_bytes = 0;
  double report_us = 0;         // the state machine for one Report, while nothing is decided
  double quiet_view_bytes = 0;  // a View while nothing is decided
  // One worker's process ends; then its next life is admitted. Everything until half a second later, Views encoded.
  struct Change {
    double ms = 0;
    double bytes = 0;
  };
  Change expulsion, admission;
};

// Runs the real Coordinator and message codec with a stand-in for each worker that reports as router/worker_steps does:
// every 250 ms, on change at most every 100 ms, at once when prepared. Its microbatches are done evenly over the step.
CoordinatorFigures measure_coordinator(const CoordinatorBenchOptions& options);

}  // namespace isthmus::lab
