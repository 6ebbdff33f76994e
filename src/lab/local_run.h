#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "config/sweep_config.h"
#include "spec/run_config.h"

namespace isthmus::lab {

// What a run in one process leaves behind. Losses are nats per token; NaN where they were no number.
struct LocalRunResult {
  struct Point {
    std::uint64_t step = 0;
    std::uint64_t tokens = 0;               // trained on so far
    double loss = 0;                        // of the step's training tokens
    std::optional<double> validation_loss;  // of the weights after the step
    std::uint64_t bytes = 0;  // payload so far: training microbatches, all boundaries, both ways, token ids included
    bool skipped = false;     // the step was bad
  };
  // Means of one stage: F, I, W of a training microbatch, the update of a step.
  struct Stage {
    double forward_seconds = 0;
    double input_gradient_seconds = 0;
    double weight_gradient_seconds = 0;
    double update_seconds = 0;
  };
  nlohmann::json config;  // the resolved run
  std::optional<config::Absence> absence;
  std::vector<Point> curve;
  double validation_loss = 0;  // of the final weights
  // Payload of a training token at one boundary; 0 where there is none.
  double forward_bytes = 0;   // values
  double backward_bytes = 0;  // their gradients
  double token_bytes = 0;     // token ids
  std::uint64_t parameters = 0;
  std::vector<Stage> stages;
  double compute_seconds = 0;    // of training, all stages (processor time on a CPU)
  double tokens_per_second = 0;  // trained tokens over compute_seconds
};

nlohmann::json to_json(const LocalRunResult& result);
// Errors: not written by to_json.
Result<LocalRunResult> local_run_result(const nlohmann::json& json);

struct LocalRunOptions {
  std::string result;  // file to write, whole or not at all
  std::optional<config::Absence> absence;
  // Descriptor for lines of JSON, a few a second: {"step": 3, "loss": 2.1}, or, once, {"error": "…"}; -1: none.
  int progress_fd = -1;
};

// Runs a whole run in this process. Returns the process's exit code.
int run_locally(const spec::RunConfig& run, const LocalRunOptions& options);

}  // namespace isthmus::lab
