#pragma once

#include <cstdint>

namespace isthmus::stage {

// Bytes that a process can still have: of the machine's memory, or of the CUDA device's. 0: this libtorch cannot say.
std::uint64_t available_memory();
std::uint64_t available_cuda_memory();

}  // namespace isthmus::stage
