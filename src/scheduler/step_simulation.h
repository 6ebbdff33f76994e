#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "scheduler/plan.h"
#include "scheduler/stage_schedule.h"

namespace isthmus {

// Time one stage needs for one microbatch.
struct OperationCosts {
  Duration forward{};
  Duration input_gradient{};
  Duration weight_gradient{};
  Duration total() const { return forward + input_gradient + weight_gradient; }
};

struct LinkCosts {
  double bits_per_second = 80e6;  // up, and the same down, shared by all of a worker's traffic
  Duration latency{};             // one way
  Duration jitter{};              // uniform in [0, jitter)
  double loss = 0;                // share of chunks sent twice
  std::uint64_t seed = 1;
};

struct StepSimulationInput {
  Plan plan;
  std::vector<OperationCosts> costs;  // per stage
  LinkCosts link;
  std::uint32_t evaluation_microbatches = 0;
  Duration commit = std::chrono::milliseconds(2);  // log sync and the like, besides the messages' latency
};

struct Span {
  StageId stage;
  Task task;
  Time start;
  Time end;
};

struct StepSimulation {
  Time step{};            // from the view that begins the step to the one that commits it
  double efficiency = 0;  // busy time of the busiest stage over the step
  std::vector<Span> spans;                   // in order of their start
  std::vector<Duration> busy;                // per stage
  std::vector<std::uint32_t> in_flight_max;  // per stage
  std::vector<std::uint64_t> bytes_up;       // per stage
  std::vector<Duration> uplink_busy;         // per stage
};

// Plays one step on a manual clock: the same StageSchedule objects that order a live worker, links that serve chunks
// of 64 KiB with gradients first, one round trip for the commit (a stage with one replica prepares by itself). The one
// predictor of plan, tests and, later, placement. Replicas: one per stage. Deterministic.
StepSimulation simulate_step(const StepSimulationInput& input);

}  // namespace isthmus
