#pragma once

#include <cstdint>

namespace isthmus::libtorch {

// Bytes that a process can still have of the CUDA device's memory. 0: this libtorch cannot say.
std::uint64_t available_cuda_memory();

}  // namespace isthmus::libtorch
