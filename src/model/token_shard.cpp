#include "model/token_shard.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/digest.h"
#include "base/little_endian.h"

namespace isthmus {

namespace {

constexpr char kMagic[9] = "ISTHTOK1";
constexpr std::size_t kHeaderBytes = 64;
constexpr std::uint32_t kForeignMagic = 20240520;
constexpr std::size_t kForeignHeaderBytes = 1024;

std::uint32_t id_at(const std::uint8_t* ids, std::uint32_t width, std::uint64_t index) {
  std::uint32_t id = 0;
  for (std::uint32_t b = 0; b < width; ++b) id |= std::uint32_t{ids[index * width + b]} << (8 * b);
  return id;
}

}  // namespace

Result<TokenShard> TokenShard::open(const std::string& path, std::uint32_t vocabulary) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info {};
  if (fd < 0 || ::fstat(fd, &info) != 0) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    return fail("cannot open the token shard {}: {}; script/corpus makes the sample corpus, isthmus data pack makes "
                "shards of your own text", path, std::strerror(error));
  }
  const auto bytes = static_cast<std::size_t>(info.st_size);
  void* mapped = S_ISREG(info.st_mode) && bytes >= kHeaderBytes ? ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
  ::close(fd);
  if (mapped == MAP_FAILED) return fail("{} is not a token shard: expected a file of at least {} bytes", path, kHeaderBytes);
  TokenShard shard;
  shard.mapped_ = static_cast<const std::uint8_t*>(mapped);
  shard.mapped_bytes_ = bytes;

  std::size_t header_bytes = kHeaderBytes;
  std::uint64_t stated_checksum = 0;
  ByteView in(shard.mapped_, bytes);
  const bool ours = std::memcmp(in.data(), kMagic, 8) == 0;
  if (ours) {
    in = in.subspan(8);
    shard.width_ = *take_le<std::uint32_t>(in);
    (void)*take_le<std::uint32_t>(in);
    shard.count_ = *take_le<std::uint64_t>(in);
    stated_checksum = *take_le<std::uint64_t>(in);
    if (shard.width_ != 1 && shard.width_ != 2 && shard.width_ != 4)
      return fail("{} says {} bytes per token id, expected 1, 2 or 4; pack it again", path, shard.width_);
  } else {
    if (*take_le<std::uint32_t>(in) != kForeignMagic || *take_le<std::uint32_t>(in) != 1 || bytes < kForeignHeaderBytes)
      return fail("{} is not a token shard: it begins with neither ISTHTOK1 nor the llm.c header (20240520, version 1)", path);
    shard.count_ = *take_le<std::uint32_t>(in);
    shard.width_ = 2;
    header_bytes = kForeignHeaderBytes;
  }
  const std::uint64_t room = (bytes - header_bytes) / shard.width_;
  if (shard.count_ != room || (bytes - header_bytes) % shard.width_ != 0)
    return fail("{} should hold {} token ids and has room for {}: it is truncated or damaged; pack it again", path,
                shard.count_, room);
  shard.ids_ = shard.mapped_ + header_bytes;
  if (ours && checksum({shard.ids_, bytes - header_bytes}) != stated_checksum)
    return fail("the checksum of {} does not match its ids: it is damaged; pack it again", path);
  if (std::uint64_t{1} << (8 * shard.width_) > vocabulary)
    for (std::uint64_t i = 0; i < shard.count_; ++i)
      if (shard[i] >= vocabulary)
        return fail("{} holds token id {} at position {}, the run's vocabulary is {}; set model.vocabulary to at least {} "
                    "or use the shard of the right tokenizer", path, shard[i], i, vocabulary, shard[i] + 1);
  return shard;
}

TokenShard::TokenShard(TokenShard&& other) noexcept
    : mapped_(std::exchange(other.mapped_, nullptr)),
      mapped_bytes_(other.mapped_bytes_),
      ids_(other.ids_),
      count_(other.count_),
      width_(other.width_) {}

TokenShard::~TokenShard() {
  if (mapped_) ::munmap(const_cast<std::uint8_t*>(mapped_), mapped_bytes_);
}

std::uint32_t TokenShard::operator[](std::uint64_t index) const { return id_at(ids_, width_, index); }

Status write_byte_shard(const std::string& path, ByteView ids) {
  Bytes header(kMagic, kMagic + 8);
  append_le(header, std::uint32_t{1});
  append_le(header, std::uint32_t{256});
  append_le(header, std::uint64_t{ids.size()});
  append_le(header, checksum(ids));
  header.resize(kHeaderBytes, 0);
  const std::string beside = path + ".new";
  const int fd = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return fail("cannot write {}: {}", beside, std::strerror(errno));
  bool written = true;
  for (ByteView part : {ByteView(header), ids})
    while (written && !part.empty()) {
      const ssize_t n = ::write(fd, part.data(), std::min<std::size_t>(part.size(), 1 << 26));
      if (n < 0 && errno == EINTR) continue;
      written = n > 0;
      if (written) part = part.subspan(static_cast<std::size_t>(n));
    }
  written = written && ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  if (written && ::rename(beside.c_str(), path.c_str()) == 0) return {};
  ::unlink(beside.c_str());
  return fail("cannot write {}: {}", path, std::strerror(written ? errno : error));
}

}  // namespace isthmus
