#pragma once

#include <bit>
#include <cstdint>

namespace isthmus::compress {

// Magnitudes order as their bits do; NaN is above all, so it is not lost.
inline std::int32_t magnitude(float value) { return std::bit_cast<std::int32_t>(value) & 0x7FFFFFFF; }

// How many of the numbers have a larger magnitude than this.
std::uint64_t count_above(const float* numbers, std::uint64_t count, std::int32_t size);

// The magnitude of the `kept`-th largest number, or one that separates as many. REQUIRES: 1 <= kept <= count.
std::int32_t least_of_largest(const float* numbers, std::uint64_t count, std::uint64_t kept);

}  // namespace isthmus::compress
