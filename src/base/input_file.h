#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <tl/expected.hpp>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus {

inline constexpr char kNoSuchFile[] = "there is no such file";

// Why a file cannot be read: what is wrong with it, and what was expected in its place.
struct InputFlaw {
  std::string what;
  std::string expected;
  // "PATH: WHAT, expected EXPECTED"
  Error at(const std::string& path) const;
};

// A regular file that somebody named, open for reading. Anything else, a folder, a device or a pipe, is refused, and
// never waited for. Movable.
class InputFile {
 public:
  // `kind`: what is expected there, "a run file".
  static tl::expected<InputFile, InputFlaw> open(const std::string& path, const std::string& kind);
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;
  ~InputFile();

  int fd() const { return fd_; }
  std::uint64_t bytes() const { return bytes_; }
  // Permissions, the last nine bits.
  unsigned permissions() const { return permissions_; }
  // The first `bytes_max` bytes at most, of a file that may have changed since.
  tl::expected<std::string, InputFlaw> read(std::uint64_t bytes_max);

 private:
  InputFile(std::string kind, int fd, std::uint64_t bytes, unsigned permissions);
  std::string kind_;
  int fd_;  // -1: moved from
  std::uint64_t bytes_;
  unsigned permissions_;
};

// The whole file; one of more than `bytes_max` is refused before it is read.
Result<std::string> read_input(const std::string& path, const std::string& kind, std::uint64_t bytes_max);
// The same for a secret: one that others could read is refused.
Result<std::string> read_secret(const std::string& path, const std::string& kind, std::uint64_t bytes_max);

}  // namespace isthmus
