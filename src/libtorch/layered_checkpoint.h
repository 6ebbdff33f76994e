#pragma once

#include <memory>

#include "spec/run_config.h"
#include "stage/checkpoint_model.h"

namespace isthmus::libtorch {

// Sets the process's number of compute threads: pipeline.threads, or one, because sums depend on it and the same text
// should come on every machine. Errors: a checkpoint that is not whole.
Result<std::unique_ptr<stage::CheckpointModel>> open_checkpoint(const spec::RunConfig& run, const std::string& folder,
                                                                std::uint64_t version);

}  // namespace isthmus::libtorch
