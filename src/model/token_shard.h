#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus {

// A file of token ids, mapped read-only. Our own format: 64 bytes of little-endian header {"ISTHTOK1", u32 bytes per
// id (1, 2 or 4), u32 largest id + 1, u64 number of ids, u64 XXH3 of the ids, zeros}, then the ids. The llm.c format
// (256 int32 {20240520, 1, number, …}, then u16 ids) is read too. Immutable after open(); any thread.
class TokenShard {
 public:
  // Every id is held to `vocabulary` before the first is used.
  static Result<TokenShard> open(const std::string& path, std::uint32_t vocabulary);
  TokenShard(TokenShard&& other) noexcept;
  TokenShard& operator=(TokenShard&&) = delete;
  ~TokenShard();

  std::uint64_t size() const { return count_; }
  // REQUIRES: index < size().
  std::uint32_t operator[](std::uint64_t index) const;

 private:
  TokenShard() = default;
  const std::uint8_t* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  const std::uint8_t* ids_ = nullptr;
  std::uint64_t count_ = 0;
  std::uint32_t width_ = 1;
};

// Writes byte ids (vocabulary 256): complete and in place, or not at all.
Status write_byte_shard(const std::string& path, ByteView ids);

}  // namespace isthmus
