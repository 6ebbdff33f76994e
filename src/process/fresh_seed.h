#pragma once

#include <cstdint>
#include <random>

namespace isthmus::process {

// The operating system's randomness: no two processes begin with the same.
inline std::uint64_t fresh_seed() {
  std::random_device device;
  return (std::uint64_t{device()} << 32) | device();
}

}  // namespace isthmus::process
