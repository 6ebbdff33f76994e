#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/output_file.h"
#include "base/result.h"
#include "data/mapped_file.h"

namespace isthmus::data {

// A file of token ids, mapped read-only. Our own format: 64 bytes of little-endian header {"ISTHTOK1", u32 bytes per
// id (1, 2 or 4), u32 vocabulary (every id is below it), u64 number of ids, u64 XXH3 of the ids, zeros}, then the ids.
// The llm.c format (256 int32 {20240520, 1, number, …}, then u16 ids) is read too. Immutable after open(); any thread.
class TokenShard {
 public:
  // The file's vocabulary and every id are held to `vocabulary` before the first is used; nothing: any is right.
  static Result<TokenShard> open(const std::string& path, std::optional<std::uint32_t> vocabulary);
  std::uint64_t size() const { return count_; }
  std::uint32_t bytes_per_id() const { return width_; }
  // REQUIRES: index < size().
  std::uint32_t operator[](std::uint64_t index) const;

 private:
  explicit TokenShard(MappedFile file) : file_(std::move(file)) {}
  MappedFile file_;
  const std::uint8_t* ids_ = nullptr;
  std::uint64_t count_ = 0;
  std::uint32_t width_ = 1;
};

// Writes a shard of any size piece by piece: complete and in place after finish(), or not at all.
class TokenShardWriter {
 public:
  // Makes the folder of `path` if there is none. REQUIRES: vocabulary > 0.
  static Result<TokenShardWriter> create(const std::string& path, std::uint32_t vocabulary, Existing existing);

  // REQUIRES: every id is below the vocabulary.
  Status append(std::span<const std::uint32_t> ids);
  // Ids so far.
  std::uint64_t size() const { return count_; }
  // Call once, last.
  Status finish();

 private:
  TokenShardWriter(OutputFile file, std::uint32_t vocabulary);
  Status write_out();

  OutputFile file_;
  std::uint32_t vocabulary_;
  std::uint32_t width_;
  std::uint64_t count_ = 0;
  Bytes waiting_;  // ids not yet in the file
  Checksum checksum_;
};

}  // namespace isthmus::data
