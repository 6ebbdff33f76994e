#include "base/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <random>
#include <utility>

#include "base/file_kind.h"

namespace isthmus {

namespace {

constexpr int kLinksMax = 40;  // as the kernel has it
constexpr int kNamesMax = 100;

tl::unexpected<Error> is_there(const std::string& path) { return fail("{} exists; --force replaces it", path); }

tl::unexpected<Error> cannot_write(const std::string& path) {
  return fail("cannot write {}: {}", path, std::strerror(errno));
}

std::filesystem::path folder_of(const std::string& target) {
  const auto folder = std::filesystem::path(target).parent_path();
  return folder.empty() ? "." : folder;
}

// Calls `make` with names in the folder of `target` that nobody else chooses, until it does not find one taken. The
// name; empty: `make` failed, errno says why.
template <class Make>
std::string name_beside(const std::string& target, Make&& make) {
  std::random_device random;
  for (int attempt = 0; attempt < kNamesMax; ++attempt) {
    // The target's own name may be as long as names can be.
    const std::string name =
        folder_of(target) / fmt::format(".isthmus-{}-{:08x}{:08x}.new", ::getpid(), random(), random());
    if (make(name.c_str())) return name;
    if (errno != EEXIST) break;
  }
  return "";
}

// Gives a file that takes the place of `old` its group, and its permissions as far as `mode` has them.
bool inherit(int fd, const struct stat& old, unsigned mode) {
  unsigned kept = old.st_mode & mode & 0777;
  // Nobody in either group may gain by it: not those of the new one, nor those of the old one, who are others now.
  if (::fchown(fd, static_cast<uid_t>(-1), old.st_gid) != 0) kept = (kept & 0700) | (kept & kept >> 3 & 07);
  return ::fchmod(fd, kept | 0600) == 0;
}

std::string link_of(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

}  // namespace

bool names_file(const std::string& path) {
  const auto name = std::filesystem::path(path).filename();
  return !name.empty() && name != "." && name != "..";
}

Result<std::string> follow_links(const std::string& path) {
  namespace fs = std::filesystem;
  fs::path at = path;
  std::error_code error;
  for (int link = 0; fs::is_symlink(fs::symlink_status(at, error)); ++link) {
    if (link == kLinksMax) return fail("{} leads from one symbolic link to the next without an end", path);
    const fs::path to = fs::read_symlink(at, error);
    if (error) return fail("cannot follow the symbolic link {}: {}", at.string(), error.message());
    at = to.is_absolute() ? to : at.parent_path() / to;
  }
  return at.string();
}

Result<OutputFile> OutputFile::create(const std::string& path, Existing existing, unsigned mode) {
  auto target = follow_links(path);
  if (!target) return tl::unexpected(target.error());
  struct stat there {};
  const bool exists = ::stat(path.c_str(), &there) == 0;
  if (exists && !S_ISREG(there.st_mode))
    return fail("cannot write {}: it is {}, expected a regular file or a new name", path, file_kind(there.st_mode));
  if (exists && existing == Existing::kRefused) return is_there(path);
  if (!names_file(path) || !names_file(*target))
    return fail("cannot write \"{}\": it names no file, expected a file's name at its end", path);
  std::error_code error;
  const auto folder = folder_of(*target);
  std::filesystem::create_directories(folder, error);
  if (error) return fail("cannot make the folder {}: {}", folder.string(), error.message());
  OutputFile file(path, std::move(*target), existing);
  if (auto opened = file.open(exists ? 0600 : mode); !opened) return tl::unexpected(opened.error());
  if (exists && !inherit(file.fd_, there, mode)) return cannot_write(path);
  return file;
}

OutputFile::OutputFile(std::string path, std::string target, Existing existing)
    : path_(std::move(path)), target_(std::move(target)), existing_(existing) {}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      target_(std::move(other.target_)),
      beside_(std::exchange(other.beside_, {})),
      existing_(other.existing_),
      fd_(std::exchange(other.fd_, -1)) {}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!beside_.empty()) ::unlink(beside_.c_str());
}

Status OutputFile::open(unsigned mode) {
  fd_ = ::open(folder_of(target_).c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, mode);
  if (fd_ >= 0) {
    struct stat link {};
    if (::lstat(link_of(fd_).c_str(), &link) == 0) return {};
    ::close(std::exchange(fd_, -1));  // without /proc it could never be given a name
  } else if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL) {
    return cannot_write(path_);
  }
  beside_ = name_beside(target_, [&](const char* name) {
    fd_ = ::open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    return fd_ >= 0;
  });
  if (fd_ < 0) return cannot_write(path_);
  return {};
}

Status OutputFile::append(ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), std::min<std::size_t>(bytes.size(), 1 << 26));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return cannot_write(path_);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Status OutputFile::rewrite_front(ByteView bytes) {
  if (::lseek(fd_, 0, SEEK_SET) != 0) return cannot_write(path_);
  return append(bytes);
}

Status OutputFile::commit() {
  if (::fsync(fd_) != 0) return cannot_write(path_);
  if (auto placed = put_in_place(); !placed) return placed;
  ::close(std::exchange(fd_, -1));
  return {};
}

Status OutputFile::name_it() {
  beside_ = name_beside(target_, [&](const char* name) {
    return ::linkat(AT_FDCWD, link_of(fd_).c_str(), AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0;
  });
  if (beside_.empty()) return cannot_write(path_);
  return {};
}

Status OutputFile::put_in_place() {
  if (existing_ == Existing::kRefused) {
    // Somebody may have made a file of this name meanwhile.
    const int placed = beside_.empty()
                           ? ::linkat(AT_FDCWD, link_of(fd_).c_str(), AT_FDCWD, target_.c_str(), AT_SYMLINK_FOLLOW)
                           : ::renameat2(AT_FDCWD, beside_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE);
    if (placed == 0) {
      beside_.clear();
      return {};
    }
    if (errno == EEXIST) return is_there(path_);
    if (beside_.empty() || (errno != EINVAL && errno != ENOSYS)) return cannot_write(path_);
    // Not every file system can do this. An empty file of ours holds the place.
    const int held = ::open(target_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (held < 0) return errno == EEXIST ? is_there(path_) : cannot_write(path_);
    ::close(held);
  }
  if (beside_.empty())
    if (auto named = name_it(); !named) return named;
  if (::rename(beside_.c_str(), target_.c_str()) != 0) {
    const auto failed = cannot_write(path_);
    if (existing_ == Existing::kRefused) ::unlink(target_.c_str());  // ours, and empty
    return failed;
  }
  beside_.clear();
  return {};
}

Status write_output(const std::string& path, ByteView bytes, Existing existing, unsigned mode) {
  auto file = OutputFile::create(path, existing, mode);
  if (!file) return tl::unexpected(file.error());
  return file->append(bytes).and_then([&] { return file->commit(); });
}

}  // namespace isthmus
