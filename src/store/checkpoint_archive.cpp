#include "store/checkpoint_archive.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>

#include "base/digest.h"
#include "base/input_file.h"
#include "base/little_endian.h"
#include "store/manifest.h"

namespace isthmus::store {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::size_t kCopied = 1 << 20;

// What a manifest says of its files, in their order; 0 bytes: nothing.
struct Stated {
  std::uint64_t bytes = 0;
  std::string digest;
};
std::array<Stated, 2> stated(const json& manifest) {
  std::array<Stated, 2> files;
  for (std::size_t i = 0; i < files.size() && manifest.is_object(); ++i) {
    const json of_file = manifest["files"].value(kCheckpointFiles[i], json::object());
    const json bytes = of_file.value("bytes", json());
    const json digest = of_file.value("blake2b", json());
    if (bytes.is_number_unsigned() && digest.is_string())
      files[i] = {bytes.get<std::uint64_t>(), digest.get<std::string>()};
  }
  return files;
}

// Why an archive that begins with this manifest is not the one that the facts name, or not of this place; empty: it
// may be.
std::string problem_of(std::string_view text, const json& manifest, const CheckpointPlace& place,
                       const CheckpointFacts& facts) {
  const auto files = stated(manifest);
  std::uint64_t left = facts.bytes;
  for (const std::uint64_t part : {sizeof(std::uint64_t) + text.size(), files[0].bytes, files[1].bytes}) {
    if (part == 0 || part > left) return "it is another one than was said";
    left -= part;
  }
  if (left > 0 || digest_hex(bytes_of(text)) != facts.digest) return "it is another one than was said";
  const json layers = {place.first_layer, place.end_layer};
  if (manifest.value("stage", json()) != place.stage.value || manifest.value("layers", json()) != layers ||
      manifest.value("version", json()) != facts.version || manifest.value("timeline", 0u) != facts.timeline)
    return "it is of another stage, step or timeline";
  return {};
}
tl::unexpected<Error> not_good(const CheckpointPlace& place, const CheckpointFacts& facts, const std::string& problem) {
  return fail("the checkpoint of step {} of stage {} is not good: {}", facts.version, place.stage, problem);
}

tl::unexpected<Error> cannot_write(const std::string& path) {
  return fail("cannot write {}: {}; free some space", path, std::strerror(errno));
}

// A file that nobody else can read, whatever becomes of it.
int open_own(const fs::path& path, int flags) { return ::open(path.c_str(), flags | O_WRONLY | O_CLOEXEC, 0600); }

bool write_at(int fd, std::uint64_t offset, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    offset += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

// `count` bytes of the file from `offset` on, behind `out`.
bool read_part(const fs::path& path, std::uint64_t offset, std::size_t count, Bytes& out) {
  std::ifstream in(path, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(offset));
  const std::size_t before = out.size();
  out.resize(before + count);
  in.read(reinterpret_cast<char*>(out.data() + before), static_cast<std::streamsize>(count));
  return static_cast<bool>(in);
}

bool copy_part(std::ifstream& in, std::uint64_t count, const fs::path& to) {
  const int fd = open_own(to, O_CREAT | O_EXCL);
  Bytes part;
  std::uint64_t copied = 0;
  bool good = fd >= 0;
  while (good && copied < count) {
    part.resize(std::min<std::uint64_t>(count - copied, kCopied));
    in.read(reinterpret_cast<char*>(part.data()), static_cast<std::streamsize>(part.size()));
    good = in && write_at(fd, copied, part);
    copied += part.size();
  }
  if (fd >= 0 && ::close(fd) != 0) good = false;
  return good;
}

}  // namespace

Result<ArchiveReader> ArchiveReader::open(const CheckpointPlace& place, std::uint64_t version) {
  ArchiveReader reader;
  reader.folder_ = checkpoint_folder(place, version);
  const auto text = read_input(reader.folder_ + "/manifest.json", "a checkpoint's manifest", kManifestBytesMax);
  if (!text) return tl::unexpected(text.error());
  const json manifest = parse_manifest(*text);
  const auto files = stated(manifest);
  reader.weights_ = files[0].bytes;
  reader.rest_ = files[1].bytes;
  if (reader.weights_ == 0 || reader.rest_ == 0)
    return fail("{}/manifest.json is damaged; expected sizes and digests of two files", reader.folder_);
  append_le<std::uint64_t>(reader.front_, text->size());
  const ByteView bytes = bytes_of(*text);
  reader.front_.insert(reader.front_.end(), bytes.begin(), bytes.end());
  reader.facts_ = {version, manifest.value("timeline", 0u), reader.front_.size() + reader.weights_ + reader.rest_,
                   digest_hex(bytes)};
  return reader;
}

Result<Bytes> ArchiveReader::read(std::uint64_t offset, std::size_t count) const {
  Bytes out;
  out.reserve(count);
  const std::uint64_t end = offset + count;
  if (offset < front_.size()) {
    const auto from = front_.begin() + static_cast<std::ptrdiff_t>(offset);
    out.assign(from, from + static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(end, front_.size()) - offset));
  }
  std::uint64_t begins = front_.size();
  for (const auto& [file, bytes] : {std::pair(kCheckpointFiles[0], weights_), std::pair(kCheckpointFiles[1], rest_)}) {
    const std::uint64_t first = std::clamp(offset, begins, begins + bytes);
    const std::uint64_t last = std::clamp(end, begins, begins + bytes);
    if (last > first && !read_part(fs::path(folder_) / file, first - begins, last - first, out))
      return fail("the checkpoint {} cannot be read: it was removed, or its {} is cut short", folder_, file);
    begins += bytes;
  }
  return out;
}

void ArchiveCheck::take_front() {
  ByteView view = front_;
  const auto size = take_le<std::uint64_t>(view);
  if (!size) return;
  if (*size > kManifestBytesMax) {
    problem_ = "it does not begin with a manifest";
    return;
  }
  if (view.size() < *size) return;
  manifest_ = true;
  const std::string text(view.begin(), view.begin() + static_cast<std::ptrdiff_t>(*size));
  const json manifest = parse_manifest(text);
  problem_ = problem_of(text, manifest, place_, facts_);
  const auto files = stated(manifest);
  for (std::size_t i = 0; i < files_.size(); ++i) {
    files_[i].left = files[i].bytes;
    files_[i].digest = files[i].digest;
  }
  const Bytes rest(view.begin() + static_cast<std::ptrdiff_t>(*size), view.end());
  front_.clear();
  if (problem_.empty()) update(rest);
}

void ArchiveCheck::update(ByteView bytes) {
  if (!problem_.empty()) return;
  if (!manifest_) {
    front_.insert(front_.end(), bytes.begin(), bytes.end());
    return take_front();
  }
  for (auto& file : files_) {
    const ByteView part = bytes.first(std::min<std::uint64_t>(file.left, bytes.size()));
    file.sum.update(part);
    file.left -= part.size();
    bytes = bytes.subspan(part.size());
  }
  if (!bytes.empty()) problem_ = "it is longer than was said";
}

Status ArchiveCheck::end() {
  for (std::size_t i = 0; i < files_.size() && problem_.empty(); ++i)
    if (!manifest_ || files_[i].left > 0)
      problem_ = "it is shorter than was said";
    else if (files_[i].sum.hex() != files_[i].digest)
      problem_ = fmt::format("its {} does not have the digest that it names", kCheckpointFiles[i]);
  if (problem_.empty()) return {};
  return not_good(place_, facts_, problem_);
}

// Replicas on one machine share the folder, and may fetch the same one.
std::string ArchiveWriter::own() const { return fmt::format(".fetching-{}-", place_.replica); }

std::string ArchiveWriter::file() const {
  return fmt::format("{}/{}{:08}-{}", fs::path(checkpoint_folder(place_, facts_.version)).parent_path().string(), own(),
                     facts_.version, facts_.digest.substr(0, 32));
}

Result<ArchiveWriter> ArchiveWriter::open(const CheckpointPlace& place, const CheckpointFacts& facts,
                                          std::uint64_t unit) {
  ArchiveWriter writer(place, facts);
  // It becomes a part of a path.
  if (!is_digest_hex(facts.digest)) return not_good(place, facts, "what names it is no digest");
  const fs::path file = writer.file();
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  if (error) return fail("cannot make the folder {}: {}", file.parent_path().string(), error.message());
  for (const auto& entry : fs::directory_iterator(file.parent_path(), error))
    if (entry.path().filename().string().starts_with(writer.own()) && entry.path() != file)
      fs::remove_all(entry.path(), error);
  const auto there = fs::file_size(file, error);
  writer.bytes_ = error ? 0 : there;
  if (writer.bytes_ > facts.bytes) writer.bytes_ = 0;
  if (writer.bytes_ < facts.bytes) writer.bytes_ -= writer.bytes_ % unit;
  if (!error) fs::resize_file(file, writer.bytes_, error);
  if (error && there != static_cast<std::uintmax_t>(-1))
    return fail("cannot write {}: {}", file.string(), error.message());
  return writer;
}

// At its place rather than at the end: what did not fit the last time may have left a part of it there.
Status ArchiveWriter::append(ByteView bytes) {
  const int fd = open_own(file(), O_CREAT);
  const bool good = fd >= 0 && write_at(fd, bytes_, bytes);
  const auto failed = cannot_write(file());
  if (fd >= 0) ::close(fd);
  if (!good) return failed;
  bytes_ += bytes.size();
  return {};
}

Status ArchiveWriter::unpack() {
  const fs::path archive = file(), beside = file() + ".unpacked";
  std::error_code error;
  const auto done = [&](Status status) {
    fs::remove(archive, error);
    fs::remove_all(beside, error);
    return status;
  };
  fs::remove_all(beside, error);
  fs::create_directory(beside, error);
  std::ifstream in(archive, std::ios::binary);
  std::array<std::uint8_t, 8> length{};
  in.read(reinterpret_cast<char*>(length.data()), length.size());
  ByteView view = length;
  const std::uint64_t size = *take_le<std::uint64_t>(view);
  if (!in || size > kManifestBytesMax) return done(not_good(place_, facts_, "it does not begin with a manifest"));
  std::string text(size, '\0');
  in.read(text.data(), static_cast<std::streamsize>(size));
  if (!in) return done(not_good(place_, facts_, "it is shorter than was said"));
  const json manifest = parse_manifest(text);
  if (const std::string problem = problem_of(text, manifest, place_, facts_); !problem.empty())
    return done(not_good(place_, facts_, problem));
  const auto files = stated(manifest);
  std::ifstream front(archive, std::ios::binary);
  front.seekg(length.size());
  if (!copy_part(front, size, beside / "manifest.json")) return done(cannot_write(beside.string()));
  for (std::size_t i = 0; i < files.size(); ++i)
    if (!copy_part(in, files[i].bytes, beside / kCheckpointFiles[i]))
      return done(in ? cannot_write(beside.string()) : not_good(place_, facts_, "it is shorter than was said"));
  const auto adopted = adopt_checkpoint(place_, facts_.version, beside.string());
  return done(adopted ? Status() : not_good(place_, facts_, adopted.error().message));
}

}  // namespace isthmus::store
