#include "record/folder_claim.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "record/file_lock.h"

namespace isthmus::record {

Result<FolderClaim> FolderClaim::take(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return fail("cannot make the folder {}: {}", folder, error.message());
  const std::string path = folder + "/lock";
  FolderClaim claim;
  // Not closed on exec: processes of the run go on holding it when the one that started them is gone.
  claim.fd_ = ::open(path.c_str(), O_RDONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0644);
  if (claim.fd_ < 0) return fail("cannot open {}: {}", path, std::strerror(errno));
  if (lock_soon(claim.fd_)) return claim;
  if (errno != EWOULDBLOCK) return fail("cannot lock {}: {}", path, std::strerror(errno));
  return fail("{} is in use by a run that has not ended; wait for it, stop it, or choose another --out", folder);
}

FolderClaim::~FolderClaim() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace isthmus::record
