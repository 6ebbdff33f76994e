#include "base/disk_sync.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace isthmus {

OpenFile::~OpenFile() { ::close(fd_); }

DiskSync::DiskSync() : DiskSync(::fdatasync) {}

DiskSync::~DiskSync() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void DiskSync::request(std::shared_ptr<const OpenFile> file) {
  std::lock_guard lock(mutex_);
  if (!thread_.joinable()) {
    try {
      thread_ = std::thread([this] { work(); });
    } catch (const std::system_error&) {
      return take(*file, bring(*file));
    }
  }
  if (std::ranges::find(due_, file) == due_.end()) due_.push_back(std::move(file));
  changed_.notify_all();
}

void DiskSync::forget(const std::string& path) {
  std::lock_guard lock(mutex_);
  std::erase_if(due_, [&](const auto& file) { return file->path() == path; });
}

Status DiskSync::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return due_.empty() && !busy_; });
  return std::exchange(failed_, {});
}

void DiskSync::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return ending_ || !due_.empty(); });
    if (ending_) return;
    // What is written from here on asks for another one.
    const auto file = std::move(due_.front());
    due_.erase(due_.begin());
    busy_ = true;
    lock.unlock();
    const int error = bring(*file);
    lock.lock();
    busy_ = false;
    take(*file, error);
    changed_.notify_all();
  }
}

// The errno, or 0.
int DiskSync::bring(const OpenFile& file) const {
  while (sync_(file.fd()) != 0)
    if (errno != EINTR) return errno;
  return 0;
}

void DiskSync::take(const OpenFile& file, int error) {
  if (error != 0 && failed_) failed_ = fail("cannot sync {}: {}", file.path(), std::strerror(error));
}

}  // namespace isthmus
