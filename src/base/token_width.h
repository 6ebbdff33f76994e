#pragma once

#include <cstdint>

namespace isthmus {

// Bytes of a token id on the wire and in memory: as narrow as the vocabulary allows, 1, 2 or 4.
constexpr std::uint32_t token_width(std::uint32_t vocabulary) {
  return vocabulary <= 256 ? 1 : vocabulary <= 65536 ? 2 : 4;
}

}  // namespace isthmus
