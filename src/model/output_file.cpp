#include "model/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace isthmus {

Result<OutputFile> OutputFile::create(const std::string& path) {
  std::error_code error;
  const auto folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) return fail("cannot make the folder {}: {}", folder.string(), error.message());
  const int fd = ::open((path + ".new").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return fail("cannot write {}.new: {}", path, std::strerror(errno));
  return OutputFile(path, fd);
}

OutputFile::OutputFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

OutputFile::OutputFile(OutputFile&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(beside().c_str());
}

Status OutputFile::append(ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), std::min<std::size_t>(bytes.size(), 1 << 26));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail("cannot write {}: {}", path_, std::strerror(errno));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Status OutputFile::rewrite_front(ByteView bytes) {
  if (::lseek(fd_, 0, SEEK_SET) != 0) return fail("cannot write {}: {}", path_, std::strerror(errno));
  return append(bytes);
}

Status OutputFile::commit() {
  if (::fsync(fd_) != 0 || ::rename(beside().c_str(), path_.c_str()) != 0)
    return fail("cannot write {}: {}", path_, std::strerror(errno));
  ::close(std::exchange(fd_, -1));
  return {};
}

}  // namespace isthmus
