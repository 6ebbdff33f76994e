#pragma once

#include <string>
#include <vector>

#include "app/line_file.h"
#include "base/result.h"
#include "scheduler/decisions.h"

namespace isthmus {

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
  explicit DecisionLog(LineFile file, int lock) : file_(std::move(file)), lock_(lock) {}
  LineFile file_;
  int lock_;  // held until the process ends
  std::vector<LogRecord> records_;
};

std::string encode_record(const LogRecord& record);
Result<LogRecord> decode_record(const std::string& line);

}  // namespace isthmus
