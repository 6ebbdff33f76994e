#include "base/plain_text.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/utf8.h"

namespace isthmus {

namespace {

// Bytes of the code point that `text` begins with if it may be shown; 0 if not.
std::size_t plain_bytes(ByteView text) {
  if (text[0] < 0x20 || text[0] == 0x7f) return 0;
  const std::size_t length = code_point_bytes(text);
  if (length == 2 && text[0] == 0xc2 && text[1] < 0xa0) return 0;  // C1
  if (length != 3 || text[0] != 0xe2) return length;
  const bool turns = (text[1] == 0x80 && text[2] >= 0xaa && text[2] <= 0xae) ||  // U+202A … U+202E
                     (text[1] == 0x81 && text[2] >= 0xa6 && text[2] <= 0xa9);    // U+2066 … U+2069
  return turns ? 0 : length;
}

}  // namespace

bool is_plain_text(std::string_view text) {
  // Nearly all texts are ASCII, and without a way out of it the loop is done sixteen bytes at a time.
  bool ascii = true;
  for (const char c : text) ascii &= static_cast<std::uint8_t>(c - 0x20) < 0x5f;
  if (ascii) return true;
  for (ByteView rest = bytes_of(text); !rest.empty();) {
    const std::size_t length = plain_bytes(rest);
    if (length == 0) return false;
    rest = rest.subspan(length);
  }
  return true;
}

std::string plain_text(std::string_view text, std::size_t most) {
  std::string plain;
  for (ByteView rest = bytes_of(text); !rest.empty();) {
    const std::size_t length = plain_bytes(rest);
    if (plain.size() + std::max<std::size_t>(length, 1) > most) break;
    if (length > 0)
      plain.append(reinterpret_cast<const char*>(rest.data()), length);
    else
      plain += rest[0] >= '\t' && rest[0] <= '\r' ? ' ' : '?';
    rest = rest.subspan(std::max<std::size_t>(length, 1));
  }
  return plain;
}

}  // namespace isthmus
