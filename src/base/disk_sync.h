#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/result.h"

namespace isthmus {

// A file that is open for as long as somebody holds it.
class OpenFile {
 public:
  OpenFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile();

  const std::string& path() const { return path_; }
  int fd() const { return fd_; }

 private:
  const std::string path_;
  const int fd_;
};

// Brings what was written to the disk while its writer goes on, in a thread of its own: a disk that several workers
// share takes tenths of a second. All calls from one thread.
class DiskSync {
 public:
  using Sync = std::function<int(int fd)>;  // 0, or -1 and errno

  DiskSync();  // fdatasync
  explicit DiskSync(Sync sync) : sync_(std::move(sync)) {}
  DiskSync(const DiskSync&) = delete;
  DiskSync& operator=(const DiskSync&) = delete;
  // Waits for the sync that runs; what has not begun is left to the kernel.
  ~DiskSync();

  // What was written to `file` until now is to be on the disk soon. Without a thread to do it, at once.
  void request(std::shared_ptr<const OpenFile> file);
  // Nobody wants this file any more.
  void forget(const std::string& path);
  // Everything requested is on the disk, or the error of the first file since the last call that cannot be.
  Status wait();

 private:
  void work();
  void take(const OpenFile& file, int error);
  int bring(const OpenFile& file) const;

  const Sync sync_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<const OpenFile>> due_;
  bool busy_ = false;
  bool ending_ = false;
  Status failed_;
  std::thread thread_;  // since the first request
};

}  // namespace isthmus
