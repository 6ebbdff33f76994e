#pragma once

#include <bit>
#include <cstdint>

namespace isthmus::compress {

// The upper half of an fp32: 8 bits of exponent, 8 of mantissa.
constexpr std::uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  // Rounding must not carry a NaN over into infinity or zero.
  const bool nan = (bits & 0x7FFFFFFF) > 0x7F800000;
  return static_cast<std::uint16_t>(nan ? (bits >> 16) | 0x40 : rounded);
}

constexpr float from_bfloat16(std::uint16_t half) { return std::bit_cast<float>(std::uint32_t{half} << 16); }

}  // namespace isthmus::compress
