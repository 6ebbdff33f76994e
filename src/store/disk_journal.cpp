#include "store/disk_journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "base/digest.h"
#include "base/little_endian.h"

namespace isthmus::store {

namespace fs = std::filesystem;

namespace {

constexpr std::uint32_t kMagic = 0x4B545349;  // "ISTK"
constexpr std::size_t kHeaderBytes = 64;
constexpr std::uint64_t kTensorMax = 1ull << 32;

// All of an entry's header but the checksum.
Bytes header_of(const DiskJournal::Key& key, std::uint32_t values, std::uint32_t tokens,
                const compress::PayloadHeader& payload) {
  Bytes header;
  append_le(header, kMagic);
  append_le(header, key.attempt);
  append_le(header, key.step.value);
  append_le(header, key.microbatch.value);
  append_le(header, std::uint32_t{key.gradient});
  append_le(header, values);
  append_le(header, tokens);
  append_le(header, std::uint32_t{payload.codec});
  append_le(header, payload.era);
  header.insert(header.end(), payload.digest.begin(), payload.digest.end());
  return header;
}

std::uint64_t checksum_of(ByteView header, ByteView values, ByteView tokens) {
  return checksum(tokens, checksum(values, checksum(header)));
}

}  // namespace

Result<DiskJournal> DiskJournal::open(const std::string& folder, std::uint64_t limit) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return fail("cannot make the journal folder {}: {}", folder, error.message());
  DiskJournal journal(folder, limit);
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.size() < 6 || name.size() > 25 || !name.starts_with("step-") ||
        name.find_first_not_of("0123456789", 5) != std::string::npos)
      continue;
    journal.read_index(StepId(std::strtoull(name.c_str() + 5, nullptr, 10)));
  }
  return journal;
}

std::string DiskJournal::file_of(StepId step) const { return fmt::format("{}/step-{:08}", folder_, step); }

void DiskJournal::read_index(StepId step) {
  std::ifstream in(file_of(step), std::ios::binary);
  std::error_code error;
  const std::uint64_t size = fs::file_size(file_of(step), error);
  std::uint64_t at = 0;
  Bytes head(kHeaderBytes);
  while (!error && at + kHeaderBytes <= size) {
    in.seekg(static_cast<std::streamoff>(at));
    if (!in.read(reinterpret_cast<char*>(head.data()), kHeaderBytes)) break;
    ByteView rest = head;
    const auto magic = *take_le<std::uint32_t>(rest);
    Key key;
    key.attempt = *take_le<std::uint32_t>(rest);
    key.step = StepId(*take_le<std::uint64_t>(rest));
    key.microbatch = MicrobatchId(*take_le<std::uint32_t>(rest));
    key.gradient = *take_le<std::uint32_t>(rest) != 0;
    Place place;
    place.offset = at;
    place.values = *take_le<std::uint32_t>(rest);
    place.tokens = *take_le<std::uint32_t>(rest);
    place.header.codec = static_cast<std::uint8_t>(*take_le<std::uint32_t>(rest));
    place.header.era = *take_le<std::uint32_t>(rest);
    std::copy_n(rest.begin(), place.header.digest.size(), place.header.digest.begin());
    const std::uint64_t end = at + kHeaderBytes + std::uint64_t{place.values} + place.tokens;
    if (magic != kMagic || key.step != step || end > size) break;  // torn
    index_[key] = place;
    at = end;
  }
  // What a dying process wrote in part is cut off, so that entries can follow.
  if (at < size) fs::resize_file(file_of(step), at, error);
  sizes_[step] = at;
  bytes_ += at;
}

Status DiskJournal::use(StepId step) {
  const std::string path = file_of(step);
  if (open_ && open_->path() == path) return {};
  open_.reset();
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return fail("cannot open the journal file {}: {}", path, std::strerror(errno));
  open_ = std::make_shared<OpenFile>(path, fd);
  sizes_.try_emplace(step, 0);
  return {};
}

Status DiskJournal::append(const Key& key, const compress::EncodedTensor& tensor) {
  if (limit_ == 0 || index_.contains(key)) return {};
  const ByteView values = *tensor.values, tokens = *tensor.tokens;
  if (values.size() >= kTensorMax || tokens.size() >= kTensorMax) return fail("a tensor too large for the journal");
  if (auto ready = use(key.step); !ready) return ready;
  const auto values_size = static_cast<std::uint32_t>(values.size());
  const auto tokens_size = static_cast<std::uint32_t>(tokens.size());
  Bytes entry = header_of(key, values_size, tokens_size, tensor.header);
  append_le(entry, checksum_of(entry, values, tokens));
  entry.insert(entry.end(), values.begin(), values.end());
  entry.insert(entry.end(), tokens.begin(), tokens.end());
  const std::uint64_t before = sizes_[key.step];
  for (ByteView rest = entry; !rest.empty();) {
    const ssize_t n = ::write(open_->fd(), rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const auto why = fail("cannot write the journal file {}: {}", open_->path(), std::strerror(errno));
      [[maybe_unused]] const int cut = ::ftruncate(open_->fd(), static_cast<off_t>(before));
      return why;
    }
    rest = rest.subspan(static_cast<std::size_t>(n));
  }
  index_[key] = {before, values_size, tokens_size, tensor.header};
  sizes_[key.step] += entry.size();
  bytes_ += entry.size();
  sync_->request(open_);
  make_room(key.step);
  return {};
}

std::optional<compress::EncodedTensor> DiskJournal::find(const Key& key) const {
  const auto at = index_.find(key);
  if (at == index_.end()) return std::nullopt;
  const Place& place = at->second;
  std::ifstream in(file_of(key.step), std::ios::binary);
  Bytes head(kHeaderBytes), values(place.values), tokens(place.tokens);
  in.seekg(static_cast<std::streamoff>(place.offset));
  in.read(reinterpret_cast<char*>(head.data()), kHeaderBytes);
  in.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size()));
  in.read(reinterpret_cast<char*>(tokens.data()), static_cast<std::streamsize>(tokens.size()));
  if (!in) return std::nullopt;
  ByteView stated = ByteView(head).last(8);
  if (const Bytes header = header_of(key, place.values, place.tokens, place.header);
      *take_le<std::uint64_t>(stated) != checksum_of(header, values, tokens))
    return std::nullopt;
  compress::EncodedTensor tensor;
  tensor.header = place.header;
  tensor.values = share(std::move(values));
  if (!tokens.empty()) tensor.tokens = share(std::move(tokens));
  return tensor;
}

void DiskJournal::remove(StepId step) {
  const auto size = sizes_.find(step);
  if (size == sizes_.end()) return;
  sync_->forget(file_of(step));
  if (open_ && open_->path() == file_of(step)) open_.reset();
  std::error_code ignored;
  fs::remove(file_of(step), ignored);
  bytes_ -= size->second;
  sizes_.erase(size);
  std::erase_if(index_, [&](const auto& entry) { return entry.first.step == step; });
}

void DiskJournal::trim(std::uint64_t version) {
  while (!sizes_.empty() && sizes_.begin()->first.value <= version) remove(sizes_.begin()->first);
}

// The ring's oldest steps go; a stage lost then is not rebuilt, the run goes back to a checkpoint.
void DiskJournal::make_room(StepId current) {
  while (bytes_ > limit_ && sizes_.begin()->first != current) remove(sizes_.begin()->first);
}

}  // namespace isthmus::store
