#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "spec/run_spec.h"
#include "spec/stage_tensors.h"
#include "store/checkpoint_store.h"
#include "store/safetensors.h"

namespace isthmus::store {

// Checkpoints of one stage: FOLDER/stage-N/step-00000100/{weights,optimizer}.safetensors and manifest.json. Written
// beside, the manifest last, and renamed when all of it is on the disk: a crash leaves the old set or the new one.
struct CheckpointPlace {
  std::string folder;  // of all stages
  StageId stage;
  std::uint32_t first_layer = 0;
  std::uint32_t end_layer = 0;
  ReplicaId replica;  // who writes: replicas on one machine share the folder
};

// Names in the optimizer's file: what it keeps of a tensor, and the steps it has taken, as two numbers, because a float
// holds whole ones only up to 2^24.
std::vector<std::string> moment_names(const spec::RunSpec& run, const spec::TensorSpec& tensor);
inline constexpr const char* kOptimizerSteps = "optimizer.steps";
std::array<float, 2> optimizer_steps(std::uint64_t steps);
// REQUIRES: two numbers.
std::uint64_t optimizer_steps(const NamedTensor& numbers);

// On error nothing that was there before has changed. One of the same version and timeline that is there already is
// left alone: replicas hold the same weights.
Status write_checkpoint(const CheckpointPlace& place, std::uint64_t version, std::uint32_t timeline,
                        const std::vector<NamedTensor>& weights, const std::vector<NamedTensor>& optimizer);
// Removes all but the newest `keep`, two at least, and version `whole`: with what other stages have, only that one is a
// whole checkpoint of the run, or is to become one. A stage that is late by one checkpoint makes the one before the
// newest whole; what lies between can never be.
void prune_checkpoints(const CheckpointPlace& place, std::uint32_t keep, std::uint64_t whole);
// Makes a checkpoint of the three files in `folder`, which is gone afterwards, once they are on the disk. Errors: they
// are damaged, or of another place or version; then the folder stays.
Status adopt_checkpoint(const CheckpointPlace& place, std::uint64_t version, const std::string& folder);
// Where it is, or would be, and the names of its files beside the manifest.
std::string checkpoint_folder(const CheckpointPlace& place, std::uint64_t version);
inline constexpr const char* kCheckpointFiles[] = {"weights.safetensors", "optimizer.safetensors"};
inline constexpr std::uint64_t kManifestBytesMax = 1 << 20;
// Checks sizes and digests of both files against the manifest, and that it is of this stage and these layers.
Result<LoadedCheckpoint> read_checkpoint(const CheckpointPlace& place, std::uint64_t version);
// Removes those of an earlier timeline above this version: they belong to a past that did not happen.
void forget_checkpoints(const CheckpointPlace& place, std::uint64_t version, std::uint32_t timeline);
// Complete checkpoints (those with a manifest), oldest first.
std::vector<std::uint64_t> checkpoint_versions(const std::string& folder, StageId stage);
// Those that every stage has, oldest first, and the newest of them.
std::vector<std::uint64_t> common_versions(const std::string& folder, std::uint32_t stages);
std::optional<std::uint64_t> newest_common_version(const std::string& folder, std::uint32_t stages);

}  // namespace isthmus::store
