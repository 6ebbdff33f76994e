#include "base/utf8.h"

#include <algorithm>

namespace isthmus {

namespace {

bool continues(std::uint8_t byte) { return (byte & 0xc0) == 0x80; }

}  // namespace

std::size_t code_point_bytes(ByteView text) {
  const std::uint8_t first = text[0];
  if (first < 0x80) return 1;
  const std::size_t length = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (length == 0 || text.size() < length) return 0;
  // Of the second byte a few first ones allow only a part: the rest would be overlong, a surrogate or above U+10FFFF.
  const std::uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const std::uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  if (text[1] < low || text[1] > high) return 0;
  return std::all_of(text.begin() + 2, text.begin() + static_cast<std::ptrdiff_t>(length), continues) ? length : 0;
}

}  // namespace isthmus
