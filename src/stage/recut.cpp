#include "stage/recut.h"

#include "store/checkpoint.h"

namespace isthmus::stage {

Status write_recut(const Recut& recut, const spec::RunConfig& run, const std::string& folder, std::uint64_t version) {
  for (std::uint32_t s = 0; s < recut.stages.size(); ++s) {
    const auto& map = run.pipeline.stage[s];
    const auto& stage = recut.stages[s];
    const store::CheckpointPlace place{folder, StageId(s), map.first_layer, map.end_layer, ReplicaId(0)};
    if (auto written = store::write_checkpoint(place, version, 0, stage.weights, stage.optimizer); !written)
      return written;
  }
  return {};
}

}  // namespace isthmus::stage
