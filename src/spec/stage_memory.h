#pragma once

#include <cstdint>

#include "spec/run_config.h"

namespace isthmus::spec {

// What a stage's layers are not all about.
struct StageUse {
  // Microbatches that it holds at its fullest: in flight, from F to the end of I, it keeps the graph; waiting, from
  // there to W, what W multiplies.
  std::uint32_t in_flight = 1;
  std::uint32_t waiting = 0;
  std::uint32_t replicas = 1;
  // Whether pipeline.activation_mb is taken to hold for all of them. A worker keeps to it with graphs only: where its
  // device is never idle, microbatches wait for their W beyond it. Only the predictor knows how many.
  bool within_budget = false;
};
// At most, in a step whose microbatches all pass one replica of a stage that ends so, with so many credits. The tail
// has one in flight: its I follows its F. The deep schedule may leave every W to the end of the step.
StageUse fullest_use(const RunSpec& run, std::uint32_t end_layer, std::uint32_t credits, std::uint32_t replicas);

// Bytes that a worker of the stage has at its peak, in its process or, with CUDA, on its device.
struct StageMemory {
  double weights = 0;     // as they are stored and multiplied, and what is fixed beside them
  double optimizer = 0;   // moments; anchors of replicas that step on their own
  double gradients = 0;   // the step's sums
  double kept = 0;        // for the microbatches that are held, with what crossed boundaries
  double working = 0;     // what one operation, or the optimizer, needs for itself and gives back, beyond that
  double checkpoint = 0;  // the copy that is written while the run goes on
  double program = 0;     // libtorch and the rest of the process
  double total() const { return weights + optimizer + gradients + kept + working + checkpoint + program; }
};

// `boundary_bytes`: of each microbatch, what came in and went out. `bf16`: whether layers multiply bf16 numbers, as
// train.precision asks, or fp32 ones, as CPUs do that cannot (model/arithmetic.h). `run` is resolved; its map is not
// looked at.
StageMemory stage_memory(const RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer, const StageUse& use,
                         double boundary_bytes, bool bf16);

// Where it is not known which machine will hold the stage: the more of both.
StageMemory stage_memory(const RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer, const StageUse& use,
                         double boundary_bytes);

// What the layers keep of one microbatch from F to I, which a worker compares with pipeline.activation_mb. With numbers
// of so many bytes in its layers.
double graph_bytes(const RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer, double number_bytes);

}  // namespace isthmus::spec
