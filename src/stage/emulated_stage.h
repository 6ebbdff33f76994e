#pragma once

#include <memory>

#include "protocol/plan.h"
#include "runner/stage_compute.h"
#include "spec/run_spec.h"

namespace isthmus::stage {

// A device that takes the time of [emulated] for every operation and makes payloads of the plan's sizes, so that many
// GPUs can be measured on a small machine. Every payload names its microbatch and is checked on arrival. Losses are 1
// nat per token, norms 0; its checkpoints hold a few numbers. `slowdown`: how many times as long an
// operation takes, from emulated.slow_after operations of step emulated.slow_step on.
std::unique_ptr<runner::StageCompute> make_emulated_stage(const spec::RunSpec& run, const protocol::Plan& plan,
                                                          StageId stage, ReplicaId replica, double slowdown = 1);

}  // namespace isthmus::stage
