#include "libtorch/cuda_memory.h"

#include <ATen/Context.h>
#include <torch/version.h>

// Since libtorch 2.10 the device's allocator can be asked without CUDA's own headers.
#define ISTHMUS_TORCH_TELLS_MEMORY (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 10))
#if ISTHMUS_TORCH_TELLS_MEMORY
#include <ATen/DeviceAccelerator.h>
#endif

namespace isthmus::libtorch {

std::uint64_t available_cuda_memory() {
#if ISTHMUS_TORCH_TELLS_MEMORY
  if (at::hasCUDA()) return at::getDeviceAllocator(at::kCUDA)->getMemoryInfo(0).first;
#endif
  return 0;
}

}  // namespace isthmus::libtorch
