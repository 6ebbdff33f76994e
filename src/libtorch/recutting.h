#pragma once

#include "spec/run_config.h"
#include "stage/recut.h"
#include "store/whole_checkpoint.h"

namespace isthmus::libtorch {

// `before` wrote the checkpoint, with its optimizer; what is made points into it. REQUIRES: `run` has the same model,
// codec, seed and optimizer.
stage::Recut recut(const spec::RunConfig& before, const store::WholeCheckpoint& checkpoint, const spec::RunConfig& run);

}  // namespace isthmus::libtorch
