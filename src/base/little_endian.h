#pragma once

#include <concepts>
#include <cstring>
#include <optional>

#include "base/bytes.h"

namespace isthmus {

// Fixed-width little-endian integers at the end of `out`.
template <std::unsigned_integral T>
void append_le(Bytes& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

// Takes one integer from the front of `in`; nothing if `in` is too short.
template <std::unsigned_integral T>
std::optional<T> take_le(ByteView& in) {
  if (in.size() < sizeof(T)) return std::nullopt;
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>(value | static_cast<T>(static_cast<T>(in[i]) << (8 * i)));
  in = in.subspan(sizeof(T));
  return value;
}

}  // namespace isthmus
