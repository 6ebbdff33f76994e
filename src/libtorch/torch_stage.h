#pragma once

#include <memory>

#include "base/result.h"
#include "runner/stage_compute.h"
#include "spec/run_config.h"

namespace isthmus::libtorch {

// The stage's layers on a CPU or CUDA device. Errors: no such device.
// Sets the process's number of compute threads.
Result<std::unique_ptr<runner::StageCompute>> make_torch_stage(const spec::RunConfig& run, StageId stage,
                                                               ReplicaId replica);

}  // namespace isthmus::libtorch
