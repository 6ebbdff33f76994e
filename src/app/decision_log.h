#pragma once

#include <string>
#include <utility>
#include <vector>

#include "app/line_file.h"
#include "base/result.h"
#include "scheduler/decisions.h"

namespace isthmus {

// An exclusive hold on a file, until destroyed or the process ends.
class FileLock {
 public:
  // Creates the file if it is missing; an error if another process holds it.
  static Result<FileLock> take(const std::string& path);
  FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

// The coordinator's append-only log on disk: one line per record, "checksum json". A torn last line was never acted
// upon and is cut off; a damaged line before the end is an error. One process at a time holds the file.
class DecisionLog {
 public:
  // Opens or creates the log and takes its lock; `records()` is what it held.
  static Result<DecisionLog> open(const std::string& path);
  const std::vector<LogRecord>& records() const { return records_; }
  // Written and synced when this returns without error; only then may what follows from the record be sent.
  Status append(const LogRecord& record);

 private:
  DecisionLog(FileLock lock, LineFile file) : lock_(std::move(lock)), file_(std::move(file)) {}
  FileLock lock_;
  LineFile file_;
  std::vector<LogRecord> records_;
};

std::string encode_record(const LogRecord& record);
Result<LogRecord> decode_record(const std::string& line);

}  // namespace isthmus
