#pragma once

#include <string>
#include <utility>

#include "base/result.h"

namespace isthmus::record {

// Locks an open file for this process alone, at once or within a second: who was killed has left the table of processes
// a moment before its files are closed, and the next one may be quick. False: another process has it, or errno.
bool lock_soon(int fd);

// An exclusive hold on a file, until destroyed or the process ends.
class FileLock {
 public:
  // Creates the file if it is missing; an error if another process, a `holder`, has it.
  static Result<FileLock> take(const std::string& path, const std::string& holder);
  FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace isthmus::record
