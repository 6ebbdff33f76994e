#pragma once

#include "base/ids.h"
#include "config/run_config.h"

namespace isthmus {

// Linear warm-up over `warmup_steps`, then a cosine from learning_rate down to final_learning_rate × learning_rate
// at step `steps`. Every worker computes it for itself; `step` counts from 1.
double learning_rate(const RunConfig& run, StepId step);

}  // namespace isthmus
