#include "app/run_vault.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "app/owner_key.h"
#include "record/line_file.h"
#include "store/checkpoint.h"
#include "store/checkpoint_archive.h"

namespace isthmus::app {

namespace {

constexpr std::uint64_t kPlaceBytesMax = 4096;

Result<store::SealedCheckpoints> open(const record::RunFolder& folder, const std::string& place, std::uint64_t run_id,
                                      const std::string& owner_key) {
  if (auto owner = check_owner(folder, owner_key); !owner) return tl::unexpected(owner.error());
  const auto secret = vault_secret(folder, owner_key);
  if (!secret) return tl::unexpected(secret.error());
  const bool within = place.find("://") == std::string::npos && !place.starts_with('/');
  auto vault = store::open_vault(within ? folder.path + "/" + place : place);
  if (!vault) return tl::unexpected(vault.error());
  return store::SealedCheckpoints(std::move(*vault), fmt::format("{:016x}", run_id), *secret);
}

// The newest version, or this one, that the vault has of so many stages.
Result<std::optional<std::uint64_t>> common_version(store::SealedCheckpoints& vault, std::size_t stages,
                                                    std::optional<std::uint64_t> step) {
  const auto kept = vault.kept();
  if (!kept) return tl::unexpected(kept.error());
  std::map<std::uint64_t, std::size_t> of_version;
  for (const auto& k : *kept) ++of_version[k.version];
  std::optional<std::uint64_t> newest;
  for (const auto& [version, count] : of_version)
    if (count == stages && (!step || version == *step)) newest = version;
  return newest;
}

}  // namespace

Result<store::SealedCheckpoints> make_vault(const record::RunFolder& folder, const std::string& place,
                                            std::uint64_t run_id, const std::string& owner_key) {
  auto vault = open(folder, place, run_id, owner_key);
  if (!vault) return vault;
  if (auto kept = record::write_whole(folder.vault_place(), place + "\n"); !kept) return tl::unexpected(kept.error());
  return vault;
}

Result<std::optional<store::SealedCheckpoints>> find_vault(const record::RunFolder& folder, std::uint64_t run_id,
                                                           const std::string& owner_key) {
  std::error_code error;
  if (!std::filesystem::exists(folder.vault_place(), error)) return std::nullopt;
  auto place = record::read_whole(folder.vault_place(), kPlaceBytesMax);
  if (!place) return tl::unexpected(place.error());
  while (place->ends_with('\n')) place->pop_back();
  auto vault = open(folder, *place, run_id, owner_key);
  if (!vault) return tl::unexpected(vault.error());
  return std::optional<store::SealedCheckpoints>(std::move(*vault));
}

Status bring_checkpoints(const record::RunFolder& folder, const spec::RunConfig& run, const protocol::Plan& plan,
                         const std::string& owner_key, std::optional<std::uint64_t> step) {
  auto vault = find_vault(folder, plan.run_id, owner_key);
  if (!vault) return tl::unexpected(vault.error());
  if (!*vault) return {};
  store::SealedCheckpoints& sealed = **vault;
  const auto version = common_version(sealed, run.pipeline.stage.size(), step);
  if (!version) return tl::unexpected(version.error());
  if (!*version) return {};
  for (std::uint32_t s = 0; s < plan.stages.size(); ++s) {
    const StageId stage(s);
    const store::CheckpointPlace place{folder.checkpoints(), stage, plan.stages[s].first_layer,
                                       plan.stages[s].end_layer, ReplicaId(0)};
    const auto facts = sealed.facts(stage, **version);
    if (!facts) return tl::unexpected(facts.error());
    if (!*facts) return fail("the vault {} has just lost step {} of stage {}", sealed.place(), **version, stage);
    const auto here = store::ArchiveReader::open(place, **version);
    if (here && here->facts() == **facts) continue;
    spdlog::info("step {} of stage {}, {} MB, from the vault {}", **version, stage,
                 ((*facts)->bytes + (1 << 20) - 1) >> 20, sealed.place());
    auto writer = store::ArchiveWriter::open(place, **facts, store::SealedCheckpoints::kBlockBytes);
    if (!writer) return tl::unexpected(writer.error());
    for (auto block = static_cast<std::uint32_t>(writer->bytes() / store::SealedCheckpoints::kBlockBytes);
         writer->bytes() < (*facts)->bytes && block < store::SealedCheckpoints::blocks_of(**facts); ++block) {
      const auto bytes = sealed.block(stage, **facts, block);
      if (!bytes) return tl::unexpected(bytes.error());
      if (auto written = writer->append(*bytes); !written) return written;
    }
    if (auto unpacked = writer->unpack(); !unpacked) return unpacked;
  }
  return {};
}

}  // namespace isthmus::app
