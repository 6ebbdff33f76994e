#pragma once

#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus {

// A regular file, mapped read-only, of any size. Immutable; any thread. A move leaves the bytes where they are.
class MappedFile {
 public:
  // Error: "PATH: reason".
  static Result<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  ByteView bytes() const { return bytes_; }

 private:
  explicit MappedFile(ByteView bytes) : bytes_(bytes) {}
  ByteView bytes_;
};

}  // namespace isthmus
