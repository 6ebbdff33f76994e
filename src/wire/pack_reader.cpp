#include "wire/pack_reader.h"

#include <fmt/format.h>

#include <bit>

#include "base/plain_text.h"

namespace isthmus::wire {

void PackReader::refuse(std::string error) {
  if (failed()) return;
  error_ = std::move(error);
  rest_ = {};
}

ByteView PackReader::take(std::size_t size) {
  if (size > rest_.size()) {
    refuse(fmt::format("{} bytes are missing", size - rest_.size()));
    return {};
  }
  const ByteView taken = rest_.first(size);
  rest_ = rest_.subspan(size);
  return taken;
}

std::uint64_t PackReader::big_endian(std::size_t size) {
  std::uint64_t value = 0;
  for (const std::uint8_t byte : take(size)) value = value << 8 | byte;
  return value;
}

std::uint64_t PackReader::number(std::uint64_t most) {
  const std::uint8_t mark = marker();
  std::uint64_t value = 0;
  if (mark < 0x80) {
    value = mark;
    rest_ = rest_.subspan(1);
  } else if (mark >= 0xcc && mark <= 0xcf) {
    rest_ = rest_.subspan(1);
    value = big_endian(std::size_t{1} << (mark - 0xcc));
  } else {
    refuse("expected a number");
  }
  if (value <= most) return value;
  refuse(fmt::format("{} is more than {}", value, most));
  return 0;
}

double PackReader::real() {
  const std::uint8_t mark = marker();
  if (mark < 0x80 || (mark >= 0xcc && mark <= 0xcf)) return static_cast<double>(number(UINT64_MAX));
  if (mark != 0xca && mark != 0xcb && !(mark >= 0xd0 && mark <= 0xd3) && mark < 0xe0) {
    refuse("expected a real number");
    return 0;
  }
  rest_ = rest_.subspan(1);
  if (mark >= 0xe0) return static_cast<std::int8_t>(mark);
  if (mark == 0xca) return std::bit_cast<float>(static_cast<std::uint32_t>(big_endian(4)));
  if (mark == 0xcb) return std::bit_cast<double>(big_endian(8));
  const std::size_t size = std::size_t{1} << (mark - 0xd0);
  const std::uint64_t bits = big_endian(size) << (64 - 8 * size);
  return static_cast<double>(static_cast<std::int64_t>(bits) >> (64 - 8 * size));
}

bool PackReader::flag() {
  const std::uint8_t mark = marker();
  if (mark != 0xc2 && mark != 0xc3) {
    refuse("expected true or false");
    return false;
  }
  rest_ = rest_.subspan(1);
  return mark == 0xc3;
}

std::string_view PackReader::text(std::size_t most) {
  const std::uint8_t mark = marker();
  std::uint64_t size = 0;
  if ((mark & 0xe0) == 0xa0) {
    size = mark & 0x1f;
    rest_ = rest_.subspan(1);
  } else if (mark >= 0xd9 && mark <= 0xdb) {
    rest_ = rest_.subspan(1);
    size = big_endian(std::size_t{1} << (mark - 0xd9));
  } else {
    refuse("expected a text");
  }
  if (size > most) refuse(fmt::format("a text of {} bytes, allowed are {}", size, most));
  if (failed()) return {};
  const ByteView bytes = take(size);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!is_plain_text(text)) refuse("a text that is not UTF-8, or has control characters in it");
  return failed() ? std::string_view() : text;
}

ByteView PackReader::binary(std::size_t size) {
  const std::uint8_t mark = marker();
  if (mark < 0xc4 || mark > 0xc6) {
    refuse("expected bytes");
    return {};
  }
  rest_ = rest_.subspan(1);
  const std::uint64_t seen = big_endian(std::size_t{1} << (mark - 0xc4));
  if (seen != size) refuse(fmt::format("{} bytes, expected {}", seen, size));
  return failed() ? ByteView() : take(size);
}

std::uint32_t PackReader::array(std::uint64_t least, std::uint64_t most) {
  const std::uint8_t mark = marker();
  std::uint64_t size = 0;
  if ((mark & 0xf0) == 0x90) {
    size = mark & 0x0f;
    rest_ = rest_.subspan(1);
  } else if (mark == 0xdc || mark == 0xdd) {
    rest_ = rest_.subspan(1);
    size = big_endian(mark == 0xdc ? 2 : 4);
  } else {
    refuse("expected a list");
  }
  if (size < least || size > most)
    refuse(least == most ? fmt::format("{} elements, expected {}", size, least)
                         : fmt::format("{} elements, allowed are {} to {}", size, least, most));
  if (size > rest_.size()) refuse(fmt::format("{} elements in {} bytes", size, rest_.size()));
  return failed() ? 0 : static_cast<std::uint32_t>(size);
}

void PackReader::end() {
  if (!rest_.empty()) refuse(fmt::format("{} bytes too many", rest_.size()));
}

}  // namespace isthmus::wire
