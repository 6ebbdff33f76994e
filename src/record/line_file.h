#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace isthmus::record {

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

// Replaces a file of the program's own by `text`, or leaves it as it is (base/output_file.h).
Status write_whole(const std::string& path, const std::string& text, unsigned mode = 0644);

// A log grows for as long as its run goes on.
inline constexpr std::uint64_t kLogBytesMax = std::uint64_t{4} << 30;
inline constexpr std::uint64_t kSummaryBytesMax = std::uint64_t{64} << 20;

// A file of the program's own; one that is longer is refused before it is read.
Result<std::string> read_whole(const std::string& path, std::uint64_t bytes_max);

}  // namespace isthmus::record
