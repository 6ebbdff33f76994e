#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "config/run_config.h"
#include "scheduler/plan.h"
#include "stage/stage_compute.h"

namespace isthmus {

// A device that takes the time of [emulated] for every operation and makes payloads of the plan's sizes, so that many
// GPUs can be measured on a small machine. Every payload names its microbatch and is checked on arrival. Losses are 1
// nat per token, norms 0; its checkpoints are real files with a few numbers. `slowdown`: how many times as long an operation takes, from
// emulated.slow_after operations of step emulated.slow_step on.
Result<std::unique_ptr<StageCompute>> make_emulated_stage(const RunConfig& run, const Plan& plan, StageId stage,
                                                          ReplicaId replica, const std::string& checkpoint_folder,
                                                          double slowdown = 1);

}  // namespace isthmus
