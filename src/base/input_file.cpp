#include "base/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/file_kind.h"

namespace isthmus {

Error InputFlaw::at(const std::string& path) const {
  return {fmt::format("{}: {}, expected {}", path, what, expected)};
}

tl::expected<InputFile, InputFlaw> InputFile::open(const std::string& path, const std::string& kind) {
  // Without O_NONBLOCK a pipe would hold us until somebody writes.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    const int error = errno;
    if (error == ENOENT) return tl::unexpected(InputFlaw{kNoSuchFile, kind});
    if (error == ENXIO) return tl::unexpected(InputFlaw{"it is not a regular file", kind});  // a socket
    return tl::unexpected(InputFlaw{fmt::format("the file cannot be opened ({})", std::strerror(error)), kind});
  }
  InputFile file(kind, fd, 0, 0);
  struct stat info {};
  if (::fstat(fd, &info) != 0)
    return tl::unexpected(InputFlaw{fmt::format("the file cannot be read ({})", std::strerror(errno)), kind});
  if (!S_ISREG(info.st_mode))
    return tl::unexpected(InputFlaw{fmt::format("this is {}", file_kind(info.st_mode)), kind});
  file.bytes_ = static_cast<std::uint64_t>(info.st_size);
  file.permissions_ = info.st_mode & 0777;
  return file;
}

InputFile::InputFile(std::string kind, int fd, std::uint64_t bytes, unsigned permissions)
    : kind_(std::move(kind)), fd_(fd), bytes_(bytes), permissions_(permissions) {}

InputFile::InputFile(InputFile&& other) noexcept
    : kind_(std::move(other.kind_)),
      fd_(std::exchange(other.fd_, -1)),
      bytes_(other.bytes_),
      permissions_(other.permissions_) {}

InputFile::~InputFile() {
  if (fd_ >= 0) ::close(fd_);
}

tl::expected<std::string, InputFlaw> InputFile::read(std::uint64_t bytes_max) {
  std::string text;
  while (text.size() < bytes_max) {
    const std::size_t had = text.size();
    // What stat() said may be too little: a file of /proc has no size, others grow.
    const std::uint64_t left = bytes_ > had ? bytes_ - had : 4096;
    text.resize(had + static_cast<std::size_t>(std::min({left, bytes_max - had, std::uint64_t{1} << 26})));
    const ssize_t n = ::read(fd_, text.data() + had, text.size() - had);
    const int error = errno;
    text.resize(had + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
    if (n == 0) break;
    if (n < 0 && error != EINTR)
      return tl::unexpected(InputFlaw{fmt::format("the file cannot be read ({})", std::strerror(error)), kind_});
  }
  return text;
}

namespace {

Result<std::string> read_all(InputFile& file, const std::string& path, const std::string& kind,
                             std::uint64_t bytes_max) {
  const auto too_long = [&] {
    return tl::unexpected(
        InputFlaw{"the file is too large", fmt::format("{} of at most {} bytes", kind, bytes_max)}.at(path));
  };
  if (file.bytes() > bytes_max) return too_long();
  auto text = file.read(bytes_max + 1);
  if (!text) return tl::unexpected(text.error().at(path));
  if (text->size() > bytes_max) return too_long();
  return std::move(*text);
}

}  // namespace

Result<std::string> read_input(const std::string& path, const std::string& kind, std::uint64_t bytes_max) {
  auto file = InputFile::open(path, kind);
  if (!file) return tl::unexpected(file.error().at(path));
  return read_all(*file, path, kind, bytes_max);
}

Result<std::string> read_secret(const std::string& path, const std::string& kind, std::uint64_t bytes_max) {
  auto file = InputFile::open(path, kind);
  if (!file) return tl::unexpected(file.error().at(path));
  if ((file->permissions() & 077) != 0)
    return fail("{}: it can be read by others (mode {:o}), expected {} that only its owner can read; chmod 600 {}",
                path, file->permissions(), kind, path);
  return read_all(*file, path, kind, bytes_max);
}

}  // namespace isthmus
