#pragma once

#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus::data {

// A regular file, mapped read-only, of any size. Immutable; any thread. A move leaves the bytes where they are.
class MappedFile {
 public:
  // `kind`: what is expected there, "a token shard". Error: "PATH: reason".
  static Result<MappedFile> open(const std::string& path, const std::string& kind);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  ByteView bytes() const { return bytes_; }

 private:
  explicit MappedFile(ByteView bytes) : bytes_(bytes) {}
  ByteView bytes_;
};

}  // namespace isthmus::data
