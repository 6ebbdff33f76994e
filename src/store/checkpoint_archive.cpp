#include "store/checkpoint_archive.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/digest.h"
#include "base/input_file.h"
#include "base/little_endian.h"

namespace isthmus::store {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::size_t kCopied = 1 << 20;

// What a manifest says of a file; 0 bytes: nothing.
struct Stated {
  std::uint64_t bytes = 0;
  std::string digest;
};
Stated stated(const json& manifest, const char* file) {
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_object()) return {};
  const json of_file = manifest["files"].value(file, json::object());
  const json bytes = of_file.is_object() ? of_file.value("bytes", json()) : json();
  const json digest = of_file.is_object() ? of_file.value("blake2b", json()) : json();
  if (!bytes.is_number_unsigned() || !digest.is_string()) return {};
  return {bytes.get<std::uint64_t>(), digest.get<std::string>()};
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
  std::ofstream out(to, std::ios::binary | std::ios::trunc);
  std::string part;
  while (count > 0 && in && out) {
    part.resize(std::min<std::uint64_t>(count, kCopied));
    in.read(part.data(), static_cast<std::streamsize>(part.size()));
    out.write(part.data(), static_cast<std::streamsize>(part.size()));
    count -= part.size();
  }
  out.close();
  return in && out;
}

}  // namespace

Result<ArchiveReader> ArchiveReader::open(const CheckpointPlace& place, std::uint64_t version) {
  ArchiveReader reader;
  reader.folder_ = checkpoint_folder(place, version);
  const auto text = read_input(reader.folder_ + "/manifest.json", "a checkpoint's manifest", kManifestBytesMax);
  if (!text) return tl::unexpected(text.error());
  const json manifest = json::parse(*text, nullptr, false);
  reader.weights_ = stated(manifest, kCheckpointFiles[0]).bytes;
  reader.rest_ = stated(manifest, kCheckpointFiles[1]).bytes;
  if (reader.weights_ == 0 || reader.rest_ == 0)
    return fail("{}/manifest.json is damaged; expected sizes and digests of two files", reader.folder_);
  append_le<std::uint64_t>(reader.front_, text->size());
  const ByteView bytes = bytes_of(*text);
  reader.front_.insert(reader.front_.end(), bytes.begin(), bytes.end());
  const json timeline = manifest.value("timeline", json());
  reader.facts_ = {version, timeline.is_number_unsigned() ? timeline.get<std::uint32_t>() : 0,
                   reader.front_.size() + reader.weights_ + reader.rest_, digest_hex(bytes)};
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
  const ByteView text = view.first(*size);
  const json manifest = json::parse(text.begin(), text.end(), nullptr, false);
  const json layers = {place_.first_layer, place_.end_layer};
  std::uint64_t all = sizeof(std::uint64_t) + *size;
  for (std::size_t i = 0; i < files_.size(); ++i) {
    const Stated file = stated(manifest, kCheckpointFiles[i]);
    files_[i].left = file.bytes;
    files_[i].digest = file.digest;
    all = file.bytes > facts_.bytes ? UINT64_MAX / 4 : all + file.bytes;
  }
  if (digest_hex(text) != facts_.digest || all != facts_.bytes)
    problem_ = "it is another one than was said";
  else if (manifest.value("stage", json()) != place_.stage.value || manifest.value("layers", json()) != layers ||
           manifest.value("version", json()) != facts_.version || manifest.value("timeline", 0u) != facts_.timeline)
    problem_ = "it is of another stage, step or timeline";
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
  return fail("the checkpoint of step {} of stage {} is not good: {}", facts_.version, place_.stage, problem_);
}

std::string ArchiveWriter::file() const {
  return fmt::format("{}/.fetching-{:08}-{}",
                     fs::path(checkpoint_folder(place_, facts_.version)).parent_path().string(), facts_.version,
                     facts_.digest.substr(0, 32));
}

Result<ArchiveWriter> ArchiveWriter::open(const CheckpointPlace& place, const CheckpointFacts& facts,
                                          std::uint64_t unit) {
  ArchiveWriter writer(place, facts);
  const fs::path file = writer.file();
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  if (error) return fail("cannot make the folder {}: {}", file.parent_path().string(), error.message());
  for (const auto& entry : fs::directory_iterator(file.parent_path(), error))
    if (entry.path().filename().string().starts_with(".fetching-") && entry.path() != file)
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

Status ArchiveWriter::append(ByteView bytes) {
  std::ofstream out(file(), std::ios::binary | std::ios::app);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) return fail("cannot write {}: {}; free some space", file(), std::strerror(errno));
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
  if (!in || size > kManifestBytesMax || size > facts_.bytes)
    return done(fail("what came as the checkpoint of step {} is none", facts_.version));
  std::string text(size, '\0');
  in.read(text.data(), static_cast<std::streamsize>(size));
  const json manifest = json::parse(text, nullptr, false);
  const std::uint64_t weights = stated(manifest, kCheckpointFiles[0]).bytes;
  const std::uint64_t rest = stated(manifest, kCheckpointFiles[1]).bytes;
  if (!in || digest_hex(bytes_of(text)) != facts_.digest || weights > facts_.bytes || rest > facts_.bytes ||
      length.size() + size + weights + rest != facts_.bytes)
    return done(fail("what came as the checkpoint of step {} is another one", facts_.version));
  std::ofstream(beside / "manifest.json", std::ios::binary) << text;
  if (!copy_part(in, weights, beside / kCheckpointFiles[0]) || !copy_part(in, rest, beside / kCheckpointFiles[1]))
    return done(fail("cannot write the checkpoint of step {} beside {}: {}", facts_.version, archive.string(),
                     std::strerror(errno)));
  for (const auto& entry : fs::directory_iterator(beside, error))
    fs::permissions(entry.path(), fs::perms::owner_read | fs::perms::owner_write, error);
  return done(adopt_checkpoint(place_, facts_.version, beside.string()));
}

}  // namespace isthmus::store
