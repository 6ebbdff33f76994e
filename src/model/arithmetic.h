#pragma once

#include <c10/core/ScalarType.h>

#include "spec/run_config.h"

namespace isthmus::model {

// What the layers of a stage multiply with here: numbers of train.precision, or fp32 where bf16 ones would have to be
// imitated. On a CPU without such instructions that takes ten times as long as fp32, which is the more exact of the
// two.
at::ScalarType arithmetic(const spec::RunConfig& run);
}  // namespace isthmus::model
