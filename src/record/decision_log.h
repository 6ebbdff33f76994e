#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/identity.h"
#include "base/result.h"
#include "record/file_lock.h"
#include "record/line_file.h"
#include "record/signed_lines.h"
#include "scheduler/coordinator/decisions.h"

namespace isthmus::record {

// The coordinator's append-only log on disk: a signed line (record/signed_lines.h) per record, its text JSON. A torn
// last line was never acted upon and is cut off; a damaged line before the end is an error. One process at a time holds
// the file.
class DecisionLog {
 public:
  // Opens or creates the log and takes its lock; `records()` is what it held. An error if somebody else signed it.
  static Result<DecisionLog> open(const std::string& path, const Identity& signer);
  const std::vector<coordinator::LogRecord>& records() const { return records_; }
  // Written and synced when this returns without error; only then may what follows from the record be sent.
  Status append(const coordinator::LogRecord& record);

 private:
  DecisionLog(FileLock lock, LineFile file, SignedLines lines)
      : lock_(std::move(lock)), file_(std::move(file)), lines_(std::move(lines)) {}
  FileLock lock_;
  LineFile file_;
  SignedLines lines_;
  std::vector<coordinator::LogRecord> records_;
};

// A record as JSON, without line breaks, and back.
std::string encode_record(const coordinator::LogRecord& record);
Result<coordinator::LogRecord> decode_record(const std::string& text);

}  // namespace isthmus::record
