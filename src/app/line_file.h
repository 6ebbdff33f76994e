#pragma once

#include <string>

#include "base/result.h"

namespace isthmus {

// Appends lines to a file that others may be reading; each line goes out whole, in one write.
class LineFile {
 public:
  // Creates the file or continues it; a torn last line of a killed writer is cut off.
  static Result<LineFile> open(const std::string& path);
  LineFile(LineFile&& other) noexcept;
  LineFile& operator=(LineFile&& other) noexcept;
  ~LineFile();

  Status append(const std::string& line);
  // Forces what was appended to the disk.
  Status sync();

 private:
  LineFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
};

// Replaces `path` by `text`, or leaves it as it is: written beside it, synced, renamed.
Status write_whole(const std::string& path, const std::string& text);
Result<std::string> read_whole(const std::string& path);

}  // namespace isthmus
