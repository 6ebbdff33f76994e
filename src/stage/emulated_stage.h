#pragma once

#include <memory>

#include "base/bytes.h"
#include "protocol/plan.h"
#include "protocol/sample.h"
#include "runner/stage_compute.h"
#include "spec/run_spec.h"

namespace isthmus::stage {

// A device that takes the time of [emulated] for every operation and makes payloads of the plan's sizes, so that many
// GPUs can be measured on a small machine. Every payload, and what it reads, names its microbatch and is checked on
// arrival. Losses are 1
// nat per token, norms 0; its checkpoints hold a few numbers. `slowdown`: how many times as long an
// operation takes, from emulated.slow_after operations of step emulated.slow_step on.
std::unique_ptr<runner::StageCompute> make_emulated_stage(const spec::RunSpec& run, const protocol::Plan& plan,
                                                          StageId stage, ReplicaId replica, double slowdown = 1);

// What the head of such a run is given to read: of the plan's size, and names the sample.
Bytes emulated_tokens(const spec::RunSpec& run, const protocol::Plan& plan, const protocol::Sample& sample);

}  // namespace isthmus::stage
