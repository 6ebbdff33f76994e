#include "data/token_shard.h"

#include <cstring>

#include "base/digest.h"
#include "base/little_endian.h"
#include "base/token_width.h"

namespace isthmus::data {

namespace {

constexpr char kMagic[9] = "ISTHTOK1";
constexpr std::size_t kHeaderBytes = 64;
constexpr std::size_t kWaitingBytes = 1 << 20;
constexpr std::uint32_t kForeignMagic = 20240520;
constexpr std::size_t kForeignHeaderBytes = 1024;

std::uint32_t id_at(const std::uint8_t* ids, std::uint32_t width, std::uint64_t index) {
  std::uint32_t id = 0;
  for (std::uint32_t b = 0; b < width; ++b) id |= std::uint32_t{ids[index * width + b]} << (8 * b);
  return id;
}

}  // namespace

Result<TokenShard> TokenShard::open(const std::string& path, std::optional<std::uint32_t> vocabulary) {
  auto mapped = MappedFile::open(path, "a token shard");
  if (!mapped)
    return fail(
        "cannot open the token shard {}; script/corpus makes the sample corpus, isthmus data pack makes "
        "shards of your own text",
        mapped.error().message);
  ByteView in = mapped->bytes();
  const std::size_t bytes = in.size();
  if (bytes < kHeaderBytes)
    return fail("{} is not a token shard: expected a file of at least {} bytes", path, kHeaderBytes);
  TokenShard shard(std::move(*mapped));

  std::size_t header_bytes = kHeaderBytes;
  std::uint64_t stated_checksum = 0;
  const bool ours = std::memcmp(in.data(), kMagic, 8) == 0;
  if (ours) {
    in = in.subspan(8);
    shard.width_ = *take_le<std::uint32_t>(in);
    const auto packed_with = *take_le<std::uint32_t>(in);
    shard.count_ = *take_le<std::uint64_t>(in);
    stated_checksum = *take_le<std::uint64_t>(in);
    if (shard.width_ != 1 && shard.width_ != 2 && shard.width_ != 4)
      return fail("{} says {} bytes per token id, expected 1, 2 or 4; pack it again", path, shard.width_);
    if (vocabulary && packed_with != *vocabulary)
      return fail(
          "{} was packed with a vocabulary of {}, the run's is {}; use the shard of the right tokenizer or set "
          "model.vocabulary = {}",
          path, packed_with, *vocabulary, packed_with);
  } else {
    if (*take_le<std::uint32_t>(in) != kForeignMagic || *take_le<std::uint32_t>(in) != 1 || bytes < kForeignHeaderBytes)
      return fail("{} is not a token shard: it begins with neither ISTHTOK1 nor the llm.c header (20240520, version 1)",
                  path);
    shard.count_ = *take_le<std::uint32_t>(in);
    shard.width_ = 2;
    header_bytes = kForeignHeaderBytes;
  }
  const std::uint64_t room = (bytes - header_bytes) / shard.width_;
  if (shard.count_ != room || (bytes - header_bytes) % shard.width_ != 0)
    return fail("{} should hold {} token ids and has room for {}: it is truncated or damaged; pack it again", path,
                shard.count_, room);
  shard.ids_ = shard.file_.bytes().data() + header_bytes;
  if (ours && checksum({shard.ids_, bytes - header_bytes}) != stated_checksum)
    return fail("the checksum of {} does not match its ids: it is damaged; pack it again", path);
  if (vocabulary && std::uint64_t{1} << (8 * shard.width_) > *vocabulary)
    for (std::uint64_t i = 0; i < shard.count_; ++i)
      if (shard[i] >= *vocabulary)
        return fail(
            "{} holds token id {} at position {}, the run's vocabulary is {}; set model.vocabulary to at least {} "
            "or use the shard of the right tokenizer",
            path, shard[i], i, *vocabulary, shard[i] + 1);
  return shard;
}

std::uint32_t TokenShard::operator[](std::uint64_t index) const { return id_at(ids_, width_, index); }

TokenShardWriter::TokenShardWriter(OutputFile file, std::uint32_t vocabulary)
    : file_(std::move(file)), vocabulary_(vocabulary), width_(token_width(vocabulary)) {}

Result<TokenShardWriter> TokenShardWriter::create(const std::string& path, std::uint32_t vocabulary,
                                                  Existing existing) {
  auto file = OutputFile::create(path, existing);
  if (!file) return tl::unexpected(file.error());
  // The header's place; finish() knows what goes there.
  if (const auto written = file->append(Bytes(kHeaderBytes, 0)); !written) return tl::unexpected(written.error());
  return TokenShardWriter(std::move(*file), vocabulary);
}

Status TokenShardWriter::append(std::span<const std::uint32_t> ids) {
  for (const std::uint32_t id : ids)
    for (std::uint32_t b = 0; b < width_; ++b) waiting_.push_back(static_cast<std::uint8_t>(id >> (8 * b)));
  count_ += ids.size();
  return waiting_.size() < kWaitingBytes ? Status() : write_out();
}

Status TokenShardWriter::write_out() {
  checksum_.update(waiting_);
  const auto written = file_.append(waiting_);
  waiting_.clear();
  return written;
}

Status TokenShardWriter::finish() {
  if (const auto written = write_out(); !written) return written;
  Bytes header(kMagic, kMagic + 8);
  append_le(header, width_);
  append_le(header, vocabulary_);
  append_le(header, count_);
  append_le(header, checksum_.value());
  return file_.rewrite_front(header).and_then([&] { return file_.commit(); });
}

}  // namespace isthmus::data
