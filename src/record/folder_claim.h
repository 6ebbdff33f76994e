#pragma once

#include <string>
#include <utility>

#include "base/result.h"

namespace isthmus::record {

// That this process and those it starts are the only ones to write into a run's folder: a lock on FOLDER/lock, which
// they hold until the last of them has ended.
class FolderClaim {
 public:
  // Makes the folder if there is none. If others hold it, and still do after a second: an error, and nothing is
  // touched.
  static Result<FolderClaim> take(const std::string& folder);
  FolderClaim() = default;
  FolderClaim(FolderClaim&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FolderClaim& operator=(FolderClaim&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FolderClaim();

 private:
  int fd_ = -1;
};

}  // namespace isthmus::record
