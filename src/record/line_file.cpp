#include "record/line_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/input_file.h"
#include "base/output_file.h"

namespace isthmus::record {

namespace {

Status write_all(int fd, const std::string& path, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail("cannot write {}: {}; free some space or choose another --out", path, std::strerror(errno));
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

Result<LineFile> LineFile::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return fail("cannot open {} for writing: {}", path, std::strerror(errno));
  LineFile file(fd, path);
  off_t end = ::lseek(fd, 0, SEEK_END);
  char last = '\n';
  while (end > 0 && ::pread(fd, &last, 1, end - 1) == 1 && last != '\n') --end;
  if (::ftruncate(fd, end) != 0 || ::lseek(fd, end, SEEK_SET) != end)
    return fail("cannot continue {}: {}", path, std::strerror(errno));
  return file;
}

LineFile::LineFile(LineFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

LineFile& LineFile::operator=(LineFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

LineFile::~LineFile() {
  if (fd_ >= 0) ::close(fd_);
}

Status LineFile::append(const std::string& line) { return write_all(fd_, path_, line + "\n"); }

Status LineFile::sync() {
  if (::fdatasync(fd_) != 0) return fail("cannot sync {}: {}", path_, std::strerror(errno));
  return {};
}

Status write_whole(const std::string& path, const std::string& text, unsigned mode) {
  return write_output(path, bytes_of(text), Existing::kReplaced, mode);
}

Result<std::string> read_whole(const std::string& path, std::uint64_t bytes_max) {
  return read_input(path, "a file of a run", bytes_max);
}

}  // namespace isthmus::record
