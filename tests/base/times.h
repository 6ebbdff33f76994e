#pragma once

#include <cstdint>

namespace isthmus {

// How often a test repeats itself with other numbers: `usual`, and a twentieth of it, at least once, under the address
// sanitizer, where everything takes ten times as long.
constexpr std::uint64_t times(std::uint64_t usual) {
#ifdef ISTHMUS_ADDRESS_SANITIZER
  return usual < 20 ? 1 : usual / 20;
#else
  return usual;
#endif
}

// Every so manieth of something is tried.
constexpr std::uint64_t kStride = 10 / times(10);

}  // namespace isthmus
