#include "compress/magnitudes.h"

#include <cstring>

#include "compress/vectorized.h"

namespace isthmus::compress {

ISTHMUS_VECTORIZED std::uint64_t count_above(const float* numbers, std::uint64_t count, std::int32_t size) {
  std::uint32_t above = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::int32_t bits;
    std::memcpy(&bits, numbers + i, sizeof bits);
    above += (bits & 0x7FFFFFFF) > size;
  }
  return above;
}

// Bit by bit, because counting is a vector operation and selecting (std::nth_element) is not.
std::int32_t least_of_largest(const float* numbers, std::uint64_t count, std::uint64_t kept) {
  std::int32_t least = 0;
  for (std::int32_t bit = 1 << 30; bit > 0; bit >>= 1) {
    const std::uint64_t from = count_above(numbers, count, (least | bit) - 1);
    if (from >= kept) least |= bit;
    if (from == kept) break;
  }
  return least;
}

}  // namespace isthmus::compress
