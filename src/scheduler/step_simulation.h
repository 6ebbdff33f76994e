#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "scheduler/plan.h"
#include "scheduler/stage_schedule.h"

namespace isthmus {

// Time one device needs for one microbatch.
struct OperationCosts {
  Duration forward{};
  Duration input_gradient{};
  Duration weight_gradient{};
  Duration total() const { return forward + input_gradient + weight_gradient; }
  OperationCosts operator*(double factor) const {
    return {seconds(to_seconds(forward) * factor), seconds(to_seconds(input_gradient) * factor), seconds(to_seconds(weight_gradient) * factor)};
  }
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
  std::vector<OperationCosts> costs;  // per worker: in the order of the stages, then of their replicas
  LinkCosts link;
  std::uint32_t evaluation_microbatches = 0;
  Duration commit = std::chrono::milliseconds(2);  // log sync and the like, besides the messages' latency
};

struct Span {
  std::uint32_t worker;
  Task task;
  Time start;
  Time end;
};

struct WorkerSimulation {
  StageId stage;
  ReplicaId replica;
  std::uint32_t microbatches = 0;  // its share of the step
  std::uint32_t in_flight_max = 0;
  Duration busy{};  // the device
  std::uint64_t bytes_up = 0;
  Duration uplink_busy{};
};

struct StepSimulation {
  Time step{};            // from the view that begins the step to the one that commits it
  double efficiency = 0;  // busy time of the busiest device over the step
  std::vector<Span> spans;  // in order of their start
  std::vector<WorkerSimulation> workers;
};

// Plays one step on a manual clock: the same StageSchedule objects that order a live worker, links that serve chunks
// of 64 KiB with gradients first, next hops by earliest finish, the combination of a stage's sums, the round trips of
// the commit. What workers have to measure and guess (load and speed of the others) is known here, so this is what a run
// can at best be. The one predictor of plan, tests and, later, placement. Deterministic.
StepSimulation simulate_step(const StepSimulationInput& input);

}  // namespace isthmus
