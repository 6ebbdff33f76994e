#pragma once

#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus {

// A file that is complete and in place after commit(), or not there at all: it grows as PATH.new.
class OutputFile {
 public:
  // Makes the folder of `path` if there is none.
  static Result<OutputFile> create(const std::string& path);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  Status append(ByteView bytes);
  // REQUIRES: as many bytes have been appended.
  Status rewrite_front(ByteView bytes);
  // Call once, last.
  Status commit();

 private:
  OutputFile(std::string path, int fd);
  std::string beside() const { return path_ + ".new"; }

  std::string path_;
  int fd_;  // -1: committed, or moved from
};

}  // namespace isthmus
