#include "data/mapped_file.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "base/input_file.h"

namespace isthmus::data {

Result<MappedFile> MappedFile::open(const std::string& path, const std::string& kind) {
  const auto file = InputFile::open(path, kind);
  if (!file) return tl::unexpected(file.error().at(path));
  if (file->bytes() == 0) return MappedFile({});
  const auto size = static_cast<std::size_t>(file->bytes());
  void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file->fd(), 0);
  if (mapped == MAP_FAILED) return fail("{}: cannot map {} bytes: {}", path, size, std::strerror(errno));
  return MappedFile({static_cast<const std::uint8_t*>(mapped), size});
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::uint8_t*>(bytes_.data()), bytes_.size());
}

}  // namespace isthmus::data
