#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace isthmus {

// 256-bit BLAKE2b, for weights and files (libsodium's generichash without a key).
class Digest {
 public:
  Digest();
  void update(ByteView bytes);
  // Call one of these, once, last.
  std::array<std::uint8_t, 32> bytes();
  std::string hex();  // lower-case hexadecimal, 64 characters

 private:
  alignas(64) std::array<std::uint8_t, 384> state_;
};

std::string digest_hex(ByteView bytes);
// Whether the text can be one of these.
bool is_digest_hex(std::string_view text);
// Non-adversarial checksum (XXH3, 64 bit) of frames, log records and shards.
std::uint64_t checksum(ByteView bytes, std::uint64_t seed = 0);

// The same checksum (seed 0) of bytes that come in pieces.
class Checksum {
 public:
  Checksum();
  void update(ByteView bytes);
  std::uint64_t value() const;

 private:
  alignas(64) std::array<std::uint8_t, 576> state_;
};

std::string to_hex(ByteView bytes);

}  // namespace isthmus
