#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace isthmus::wire {

// Takes msgpack values from the front of some bytes, one after the other (https://github.com/msgpack/msgpack/,
// spec.md); allocates nothing. The first value that is not what was asked for ends it: all that follow are 0 or empty,
// and error() says what was wrong.
class PackReader {
 public:
  explicit PackReader(ByteView bytes) : rest_(bytes) {}

  std::uint64_t number(std::uint64_t most);
  // Also a whole number, which is how packers write a real one that is whole.
  double real();
  bool flag();
  // Inside the bytes given; plain (base/plain_text.h).
  std::string_view text(std::size_t most);
  ByteView binary(std::size_t size);
  // How many elements follow. Each takes a byte at least, so it is never more than there are bytes left.
  std::uint32_t array(std::uint64_t least, std::uint64_t most);
  // There must be no more.
  void end();

  void refuse(std::string error);
  bool failed() const { return !error_.empty(); }
  const std::string& error() const { return error_; }

 private:
  // The next `size` bytes, a number with the most significant first.
  std::uint64_t big_endian(std::size_t size);
  ByteView take(std::size_t size);
  // The marker in front, 0xc1 (which is none) if there is nothing left.
  std::uint8_t marker() const { return rest_.empty() ? 0xc1 : rest_[0]; }

  ByteView rest_;
  std::string error_;
};

}  // namespace isthmus::wire
