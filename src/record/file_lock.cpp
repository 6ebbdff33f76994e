#include "record/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

namespace isthmus::record {

bool lock_soon(int fd) {
  using Clock = std::chrono::steady_clock;
  const auto give_up = Clock::now() + std::chrono::seconds(1);
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK || Clock::now() > give_up) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

Result<FileLock> FileLock::take(const std::string& path, const std::string& holder) {
  FileLock lock(::open(path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644));
  if (lock.fd_ < 0) return fail("cannot open {}: {}", path, std::strerror(errno));
  if (lock_soon(lock.fd_)) return lock;
  if (errno != EWOULDBLOCK) return fail("cannot lock {}: {}", path, std::strerror(errno));
  return fail("{} is in use by another {}; stop it first", path, holder);
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace isthmus::record
