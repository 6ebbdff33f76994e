#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "spec/run_spec.h"
#include "store/checkpoint.h"

namespace isthmus::store {

// One version of a run, all its stages together. The tensors point into `stages`.
struct WholeCheckpoint {
  std::uint64_t version = 0;
  std::vector<LoadedCheckpoint> stages;
  std::map<std::string, NamedTensor> weights;  // by name: no two stages have the same one
  std::map<std::string, NamedTensor> moments;  // the optimizer's
  std::vector<std::uint64_t> steps;            // of the optimizer, by stage
};

// Checks digests, and that every tensor of every stage is there and has the run's shape; the error names all that is
// wrong. Without `optimizer` its files are checked and not kept. `run` is the one that wrote them.
enum class Keep { kWeights, kWeightsAndOptimizer };
Result<WholeCheckpoint> read_whole_checkpoint(const spec::RunSpec& run, const std::string& folder,
                                              std::uint64_t version, Keep keep);

// `step`, or, without it, the newest of which every stage has a checkpoint. The error says what there is.
Result<std::uint64_t> choose_version(const std::string& folder, std::uint32_t stages,
                                     std::optional<std::uint64_t> step);

}  // namespace isthmus::store
