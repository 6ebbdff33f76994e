#pragma once

#include <c10/core/ScalarType.h>

#include <string>

#include "config/run_config.h"

namespace isthmus {

// Whether this machine's CPU multiplies bf16 numbers itself: AVX-512 BF16, AMX, or Arm's BF16.
bool cpu_multiplies_bf16();

// What the layers of a stage multiply with here: numbers of train.precision, or fp32 where bf16 ones would have to be imitated. On a
// CPU without such instructions that takes ten times as long as fp32, which is the more exact of the two.
at::ScalarType arithmetic(const RunConfig& run);
// For people, where that is not what the run file says; otherwise empty.
std::string arithmetic_note(const RunConfig& run);

}  // namespace isthmus
