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

Result<std::string> name_in_vault(const record::RunFolder& folder, std::uint64_t run_id) {
  const auto identity = Identity::keep(folder.coordinator_identity());
  if (!identity) return tl::unexpected(identity.error());
  return fmt::format("{:016x}-{}", run_id, to_hex(identity->key()).substr(0, 16));
}

Status bring(const record::RunFolder& folder, const protocol::Plan& plan, const std::string& place,
             const std::string& owner_key, std::optional<std::uint64_t> step, std::uint64_t here) {
  auto vault = open_run_vault(folder, place, plan.run_id, owner_key);
  if (!vault) return tl::unexpected(vault.error());
  store::SealedCheckpoints& sealed = *vault;
  const auto version = common_version(sealed, plan.stages.size(), step);
  if (!version) return tl::unexpected(version.error());
  if (!*version || (!step && **version <= here)) return {};
  std::optional<std::uint32_t> timeline;
  for (std::uint32_t s = 0; s < plan.stages.size(); ++s) {
    const StageId stage(s);
    const store::CheckpointPlace own{folder.checkpoints(), stage, plan.stages[s].first_layer, plan.stages[s].end_layer,
                                     ReplicaId(0)};
    const auto facts = sealed.facts(stage, **version);
    if (!facts) return tl::unexpected(facts.error());
    if (!*facts) return fail("the vault {} has just lost step {} of stage {}", sealed.place(), **version, stage);
    if (timeline.value_or((*facts)->timeline) != (*facts)->timeline)
      return fail(
          "some stages of step {1} in the vault {0} were saved before the run went back, some after; expected all of "
          "one "
          "past; choose another --step, or wait for the next checkpoint",
          sealed.place(), **version);
    timeline = (*facts)->timeline;
    const auto there = store::ArchiveReader::open(own, **version);
    if (there && there->facts() == **facts) continue;
    spdlog::info("step {} of stage {}, {} MB, from the vault {}", **version, stage,
                 ((*facts)->bytes + (1 << 20) - 1) >> 20, sealed.place());
    auto writer = store::ArchiveWriter::open(own, **facts, store::SealedCheckpoints::kBlockBytes);
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

}  // namespace

Result<store::SealedCheckpoints> open_run_vault(const record::RunFolder& folder, const std::string& place,
                                                std::uint64_t run_id, const std::string& owner_key) {
  if (auto owner = check_owner(folder, owner_key); !owner) return tl::unexpected(owner.error());
  const auto secret = vault_secret(folder, owner_key);
  if (!secret) return tl::unexpected(secret.error());
  const auto name = name_in_vault(folder, run_id);
  if (!name) return tl::unexpected(name.error());
  const bool within = place.find("://") == std::string::npos && !place.starts_with('/');
  auto vault = store::open_vault(within ? folder.path + "/" + place : place);
  if (!vault) return tl::unexpected(vault.error());
  return store::SealedCheckpoints(std::move(*vault), *name, *secret);
}

std::string vault_place_of(const record::RunFolder& folder) {
  auto place = record::read_whole(folder.vault_place(), kPlaceBytesMax).value_or("");
  while (place.ends_with('\n')) place.pop_back();
  return place;
}

Status keep_vault_place(const record::RunFolder& folder, const std::string& place) {
  return record::write_whole(folder.vault_place(), place + "\n");
}

Status bring_checkpoints(const record::RunFolder& folder, const spec::RunConfig& run, const protocol::Plan& plan,
                         const std::string& owner_key, std::optional<std::uint64_t> step) {
  const auto stages = static_cast<std::uint32_t>(run.pipeline.stage.size());
  const std::string place = vault_place_of(folder);
  const auto here = store::common_versions(folder.checkpoints(), stages);
  if (place.empty() || (step && std::ranges::find(here, *step) != here.end())) return {};
  auto brought = bring(folder, plan, place, owner_key, step, here.empty() ? 0 : here.back());
  if (brought || here.empty()) return brought;
  spdlog::warn("{}; the newest checkpoint that is here is of step {}", brought.error().message, here.back());
  return {};
}

}  // namespace isthmus::app
