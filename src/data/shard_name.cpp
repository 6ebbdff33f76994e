#include "data/shard_name.h"

#include <algorithm>
#include <utility>

#include "base/digest.h"
#include "data/mapped_file.h"

namespace isthmus::data {

namespace {

constexpr std::size_t kDigestedAtOnce = 16 << 20;

Status is_another(const std::string& path, const std::string& there, const std::string& expected) {
  return fail(
      "{} is another shard than the run's: it has {}, the run's has {}; give the path of the right one, or start a new "
      "run",
      path, there, expected);
}

}  // namespace

Result<spec::RunSpec::Shard> shard_name(const std::string& path, const ReadProgress& progress) {
  const auto file = MappedFile::open(path, "a token shard");
  if (!file) return fail("cannot open the token shard {}", file.error().message);
  const ByteView bytes = file->bytes();
  Digest digest;
  for (std::size_t at = 0; at < bytes.size(); at += kDigestedAtOnce) {
    digest.update(bytes.subspan(at, std::min(kDigestedAtOnce, bytes.size() - at)));
    if (progress) progress(path, std::min(at + kDigestedAtOnce, bytes.size()), bytes.size());
  }
  return spec::RunSpec::Shard{digest.hex(), bytes.size()};
}

Status name_shards(spec::RunConfig& run, const ReadProgress& progress) {
  if (run.emulated.devices) return {};
  for (const auto& [path, shard] :
       {std::pair(&run.host.data.train, &run.data.train), std::pair(&run.host.data.validation, &run.data.validation)}) {
    if (shard->known()) continue;
    auto name = shard_name(*path, progress);
    if (!name) return tl::unexpected(name.error());
    *shard = std::move(*name);
  }
  return {};
}

Status check_shard_name(const std::string& path, const spec::RunSpec::Shard& expected) {
  if (!expected.known()) return {};
  const auto file = MappedFile::open(path, "a token shard");
  if (!file) return fail("cannot open the token shard {}", file.error().message);
  if (file->bytes().size() != expected.bytes)
    return is_another(path, fmt::format("{} bytes", file->bytes().size()),
                      fmt::format("{} bytes and the digest {}", expected.bytes, expected.digest));
  const auto there = shard_name(path);
  if (!there) return tl::unexpected(there.error());
  if (there->digest != expected.digest) return is_another(path, "the digest " + there->digest, expected.digest);
  return {};
}

}  // namespace isthmus::data
