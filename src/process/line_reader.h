#pragma once

#include <optional>
#include <string>

namespace isthmus::process {

// Whole lines from a descriptor that another process writes to. Reads without blocking.
class LineReader {
 public:
  explicit LineReader(int fd);
  // The next whole line, or nothing if none is there yet.
  std::optional<std::string> next();
  // The writer has closed its end.
  bool closed() const { return closed_; }
  int fd() const { return closed_ ? -1 : fd_; }

 private:
  int fd_;
  bool closed_;
  std::string buffer_;
};

}  // namespace isthmus::process
