#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "config/run_config.h"
#include "stage/stage_compute.h"

namespace isthmus {

// The stage's layers on a CPU or CUDA device. Errors: missing or broken data shards (head stage), no such device.
// Sets the process's number of compute threads.
Result<std::unique_ptr<StageCompute>> make_torch_stage(const RunConfig& run, StageId stage, ReplicaId replica,
                                                      const std::string& checkpoint_folder);

}  // namespace isthmus
