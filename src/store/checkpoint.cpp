#include "store/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "store/manifest.h"

namespace isthmus::store {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

fs::path stage_folder(const std::string& folder, StageId stage) {
  return fs::path(folder) / fmt::format("stage-{}", stage);
}
fs::path version_folder(const std::string& folder, StageId stage, std::uint64_t version) {
  return stage_folder(folder, stage) / fmt::format("step-{:08}", version);
}

struct Written {
  std::uint64_t bytes = 0;
  std::string digest;
};

// Writes the parts one after another, synced.
Result<Written> write_file(const fs::path& path, const std::vector<ByteView>& parts) {
  const auto refuse = [&] {
    return fail(
        "cannot write the checkpoint file {}: {}; earlier checkpoints are untouched, free some space and "
        "continue with --resume",
        path.string(), std::strerror(errno));
  };
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return refuse();
  Written written;
  Digest digest;
  for (ByteView part : parts) {
    digest.update(part);
    written.bytes += part.size();
    while (!part.empty()) {
      const ssize_t n = ::write(fd, part.data(), std::min<std::size_t>(part.size(), 1 << 26));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        auto error = refuse();
        ::close(fd);
        return error;
      }
      part = part.subspan(static_cast<std::size_t>(n));
    }
  }
  if (::fsync(fd) != 0) {
    auto error = refuse();
    ::close(fd);
    return error;
  }
  ::close(fd);
  written.digest = digest.hex();
  return written;
}

void sync_path(const fs::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
}
void sync_folder(const fs::path& path) { sync_path(path, O_RDONLY | O_DIRECTORY); }

Status write_into(const fs::path& folder, const CheckpointPlace& place, std::uint64_t version, std::uint32_t timeline,
                  const std::vector<NamedTensor>* sets[2]) {
  json manifest = {{"format", 1},
                   {"version", version},
                   {"timeline", timeline},
                   {"stage", place.stage.value},
                   {"layers", {place.first_layer, place.end_layer}},
                   {"files", json::object()}};
  for (int i = 0; i < 2; ++i) {
    const Bytes header = safetensors_header(*sets[i]);
    std::vector<ByteView> parts = {header};
    for (const auto& tensor : *sets[i]) parts.push_back(tensor.bytes);
    const auto written = write_file(folder / kCheckpointFiles[i], parts);
    if (!written) return tl::unexpected(written.error());
    manifest["files"][kCheckpointFiles[i]] = {{"bytes", written->bytes}, {"blake2b", written->digest}};
  }
  const std::string text = manifest.dump(2) + "\n";
  const ByteView bytes(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  const auto written = write_file(folder / "manifest.json", {bytes});
  if (!written) return tl::unexpected(written.error());
  return {};
}

Result<Bytes> read_checked(const fs::path& path, const json& stated) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error)
    return fail("checkpoint file {} is missing; resume from another checkpoint (remove this one)", path.string());
  if (!stated.is_object() || !stated.contains("bytes") || stated["bytes"] != size)
    return fail(
        "checkpoint file {} has {} bytes, its manifest says {}: it is truncated or damaged; remove this checkpoint "
        "to resume from an earlier one",
        path.string(), size, stated.is_object() ? stated.value("bytes", json()).dump() : "nothing");
  Bytes bytes(size);
  std::ifstream in(path, std::ios::binary);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  if (!in) return fail("cannot read the checkpoint file {}", path.string());
  if (stated.value("blake2b", json()) != digest_hex(bytes))
    return fail(
        "checkpoint file {} does not match the digest in its manifest: it is damaged; remove this checkpoint to "
        "resume from an earlier one",
        path.string());
  return bytes;
}

Result<json> read_manifest(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return fail("there is no checkpoint manifest {}", path.string());
  if (fs::file_size(path, error) > kManifestBytesMax)
    return fail("{} is too large for a checkpoint manifest", path.string());
  std::ifstream in(path, std::ios::binary);
  json manifest = parse_manifest(std::string(std::istreambuf_iterator<char>(in), {}));
  if (manifest.is_discarded())
    return fail("{} is not a checkpoint manifest: damaged JSON; remove this checkpoint to resume from an earlier one",
                path.string());
  return manifest;
}

// A replica on the same machine may have written it already.
bool stands(const fs::path& folder, std::uint32_t timeline) {
  const auto manifest = read_manifest(folder / "manifest.json");
  if (!manifest || manifest->value("timeline", json()) != timeline) return false;
  for (const char* file : kCheckpointFiles) {
    std::error_code error;
    const auto size = fs::file_size(folder / file, error);
    if (error || (*manifest)["files"].value(file, json::object()).value("bytes", json()) != size) return false;
  }
  return true;
}

// At any moment there is a whole checkpoint: what stands there, damaged, of a past that did not happen, or another
// replica's with the same bytes, changes places with ours in one go.
Status put_in_place(const fs::path& beside, const fs::path& final) {
  constexpr int kTries = 100;  // others come and go only while they write the same version
  for (int i = 0; i < kTries; ++i) {
    if (::rename(beside.c_str(), final.c_str()) == 0) return {};
    if (errno != ENOTEMPTY && errno != EEXIST) break;
    if (::renameat2(AT_FDCWD, beside.c_str(), AT_FDCWD, final.c_str(), RENAME_EXCHANGE) == 0) {
      std::error_code error;
      fs::remove_all(beside, error);
      return {};
    }
    if (errno != ENOENT) break;
  }
  return fail("cannot rename {} to {}: {}", beside.string(), final.string(),
              std::error_code(errno, std::generic_category()).message());
}

Result<LoadedCheckpoint> read_files(const fs::path& folder, const CheckpointPlace& place, std::uint64_t version) {
  const auto manifest = read_manifest(folder / "manifest.json");
  if (!manifest) return tl::unexpected(manifest.error());
  const json layers = {place.first_layer, place.end_layer};
  if (manifest->value("stage", json()) != place.stage.value || manifest->value("layers", json()) != layers ||
      manifest->value("version", json()) != version)
    return fail(
        "{} is the checkpoint of another stage, layer range or step than stage {}, layers {}:{}, step {}; resume with "
        "the layer-to-stage map it was written with",
        folder.string(), place.stage, place.first_layer, place.end_layer, version);
  LoadedCheckpoint loaded;
  loaded.version = version;
  loaded.timeline = manifest->value("timeline", 0u);
  SafetensorsFile* files[2] = {&loaded.weights, &loaded.optimizer};
  for (int i = 0; i < 2; ++i) {
    auto bytes = read_checked(folder / kCheckpointFiles[i], (*manifest)["files"].value(kCheckpointFiles[i], json()));
    if (!bytes) return tl::unexpected(bytes.error());
    auto parsed = parse_safetensors(std::move(*bytes));
    if (!parsed) return fail("checkpoint file {}: {}", (folder / kCheckpointFiles[i]).string(), parsed.error().message);
    *files[i] = std::move(*parsed);
  }
  return loaded;
}

}  // namespace

std::vector<std::string> moment_names(const spec::RunSpec& run, const spec::TensorSpec& tensor) {
  if (spec::optimizer_moments(run, tensor) == 1) return {tensor.name() + ".momentum"};
  return {tensor.name() + ".exp_avg", tensor.name() + ".exp_avg_sq"};
}

std::array<float, 2> optimizer_steps(std::uint64_t steps) {
  return {static_cast<float>(steps >> 20), static_cast<float>(steps & 0xFFFFF)};
}

std::uint64_t optimizer_steps(const NamedTensor& numbers) {
  std::array<float, 2> halves{};
  std::memcpy(halves.data(), numbers.bytes.data(), sizeof halves);
  return (static_cast<std::uint64_t>(halves[0]) << 20) | static_cast<std::uint64_t>(halves[1]);
}

Status write_checkpoint(const CheckpointPlace& place, std::uint64_t version, std::uint32_t timeline,
                        const std::vector<NamedTensor>& weights, const std::vector<NamedTensor>& optimizer) {
  const fs::path parent = stage_folder(place.folder, place.stage);
  const fs::path final = version_folder(place.folder, place.stage, version);
  if (stands(final, timeline)) return {};
  const std::string own = fmt::format(".writing-{}-", place.replica);
  const fs::path beside = parent / fmt::format("{}{:08}", own, version);
  std::error_code error;
  fs::create_directories(parent, error);
  // What an earlier life of this writer left behind.
  for (const auto& entry : fs::directory_iterator(parent, error))
    if (entry.path().filename().string().starts_with(own)) fs::remove_all(entry.path(), error);
  if (!fs::create_directory(beside, error))
    return fail("cannot make the checkpoint folder {}: {}", beside.string(), error.message());

  const std::vector<NamedTensor>* sets[2] = {&weights, &optimizer};
  if (auto written = write_into(beside, place, version, timeline, sets); !written) {
    fs::remove_all(beside, error);
    return written;
  }
  sync_folder(beside);
  if (auto put = put_in_place(beside, final); !put) return put;
  sync_folder(parent);
  return {};
}

void prune_checkpoints(const CheckpointPlace& place, std::uint32_t keep, std::uint64_t whole) {
  const auto versions = checkpoint_versions(place.folder, place.stage);
  std::error_code ignored;
  for (std::size_t i = 0; i + std::max(keep, 2u) < versions.size(); ++i)
    if (versions[i] != whole) fs::remove_all(version_folder(place.folder, place.stage, versions[i]), ignored);
}

std::string checkpoint_folder(const CheckpointPlace& place, std::uint64_t version) {
  return version_folder(place.folder, place.stage, version).string();
}

Status adopt_checkpoint(const CheckpointPlace& place, std::uint64_t version, const std::string& folder) {
  if (auto read = read_files(folder, place, version); !read) return tl::unexpected(read.error());
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) sync_path(entry.path(), O_RDONLY);
  sync_folder(folder);
  const fs::path final = checkpoint_folder(place, version);
  if (auto put = put_in_place(folder, final); !put) return put;
  sync_folder(final.parent_path());
  return {};
}

Result<LoadedCheckpoint> read_checkpoint(const CheckpointPlace& place, std::uint64_t version) {
  return read_files(version_folder(place.folder, place.stage, version), place, version);
}

void forget_checkpoints(const CheckpointPlace& place, std::uint64_t version, std::uint32_t timeline) {
  std::error_code error;
  for (const auto newer : checkpoint_versions(place.folder, place.stage)) {
    if (newer <= version) continue;
    const fs::path folder = version_folder(place.folder, place.stage, newer);
    const auto manifest = read_manifest(folder / "manifest.json");
    if (!manifest || manifest->value("timeline", 0u) < timeline) fs::remove_all(folder, error);
  }
}

std::vector<std::uint64_t> checkpoint_versions(const std::string& folder, StageId stage) {
  std::vector<std::uint64_t> versions;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(stage_folder(folder, stage), error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step-") || name.size() > 25 ||
        name.find_first_not_of("0123456789", 5) != std::string::npos || name.size() == 5)
      continue;
    if (fs::is_regular_file(entry.path() / "manifest.json", error))
      versions.push_back(std::strtoull(name.c_str() + 5, nullptr, 10));
  }
  std::ranges::sort(versions);
  return versions;
}

std::vector<std::uint64_t> common_versions(const std::string& folder, std::uint32_t stages) {
  std::vector<std::uint64_t> common = checkpoint_versions(folder, StageId(0));
  for (std::uint32_t s = 1; s < stages; ++s) {
    const auto versions = checkpoint_versions(folder, StageId(s));
    std::erase_if(common, [&](std::uint64_t v) { return !std::ranges::binary_search(versions, v); });
  }
  return common;
}

std::optional<std::uint64_t> newest_common_version(const std::string& folder, std::uint32_t stages) {
  const auto common = common_versions(folder, stages);
  if (common.empty()) return std::nullopt;
  return common.back();
}

}  // namespace isthmus::store
