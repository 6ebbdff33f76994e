#pragma once

namespace isthmus::process {

// Whether this machine's CPU multiplies bf16 numbers itself: AVX-512 BF16, AMX, or Arm's BF16.
bool cpu_multiplies_bf16();

}  // namespace isthmus::process
