#include "store/whole_checkpoint.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "spec/stage_tensors.h"

namespace isthmus::store {

namespace {

// What the file lacks of this tensor, or nothing.
std::string lack(const SafetensorsFile& file, const std::string& name, const std::vector<std::int64_t>& shape) {
  const auto at = file.tensors.find(name);
  if (at == file.tensors.end()) return fmt::format("\n  tensor {} is missing", name);
  if (at->second.shape != shape)
    return fmt::format("\n  tensor {} has the shape {}, expected {}", name, at->second.shape, shape);
  return "";
}

std::string lacks(const spec::RunSpec& run, const spec::RunSpec::Stage& stage, const LoadedCheckpoint& loaded) {
  std::string out = lack(loaded.optimizer, kOptimizerSteps, {2});
  for (const auto& spec : spec::stage_tensors(run, stage.first_layer, stage.end_layer)) {
    out += lack(loaded.weights, spec.name(), spec.shape());
    for (const auto& name : moment_names(run, spec)) out += lack(loaded.optimizer, name, spec.shape());
  }
  return out.empty() ? out : fmt::format("\n  of layers {}:{}:", stage.first_layer, stage.end_layer) + out;
}

}  // namespace

Result<WholeCheckpoint> read_whole_checkpoint(const spec::RunSpec& run, const std::string& folder,
                                              std::uint64_t version, Keep keep) {
  WholeCheckpoint whole;
  whole.version = version;
  std::string problems;
  for (std::uint32_t s = 0; s < run.pipeline.stage.size(); ++s) {
    const auto& stage = run.pipeline.stage[s];
    auto loaded = read_checkpoint({folder, StageId(s), stage.first_layer, stage.end_layer, ReplicaId(0)}, version);
    if (!loaded) {
      problems += "\n  " + loaded.error().message;
      continue;
    }
    if (const std::string missing = lacks(run, stage, *loaded); !missing.empty()) {
      problems += missing;
      continue;
    }
    whole.steps.push_back(optimizer_steps(loaded->optimizer.tensors.at(kOptimizerSteps)));
    if (keep == Keep::kWeights) loaded->optimizer = {};
    whole.weights.insert(loaded->weights.tensors.begin(), loaded->weights.tensors.end());
    whole.moments.insert(loaded->optimizer.tensors.begin(), loaded->optimizer.tensors.end());
    whole.moments.erase(kOptimizerSteps);
    whole.stages.push_back(std::move(*loaded));
  }
  if (!problems.empty()) return fail("the checkpoint of step {} in {} is not whole:{}", version, folder, problems);
  return whole;
}

Result<std::uint64_t> choose_version(const std::string& folder, std::uint32_t stages,
                                     std::optional<std::uint64_t> step) {
  const auto versions = common_versions(folder, stages);
  if (!step && !versions.empty()) return versions.back();
  if (step && std::ranges::binary_search(versions, *step)) return *step;
  std::string there;
  for (std::uint32_t s = 0; s < stages; ++s) {
    const auto own = checkpoint_versions(folder, StageId(s));
    there += fmt::format("\n  stage {}: {}", s, own.empty() ? "none" : fmt::format("{}", fmt::join(own, ", ")));
  }
  return step ? fail("not every stage has a checkpoint of step {}; there are these steps:{}", *step, there)
              : fail("there is no step of which every stage has a checkpoint in {}; there are these:{}", folder, there);
}

}  // namespace isthmus::store
