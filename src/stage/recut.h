#pragma once

#include <deque>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "spec/run_config.h"
#include "store/whole_checkpoint.h"

namespace isthmus::stage {

// A checkpoint laid out for another layer-to-stage map of the same model. Tensors of the layers, the embedding and the
// head go where their layers go, and what the optimizer keeps of them comes along. A stage's own tensors depend on
// where the model is cut:
//
// - A cut that both maps have keeps its token path, basis (narrow) and border (bottleneck, learned).
// - A new cut splits an old stage in two. The second half gets copies of the stage's token path and basis, so that its
// layers see
//   what they saw. Where the stage had no path, or what it adds stays in the stream (ordinary models), the new one adds
//   nothing.
// - A learned border of a new cut begins anew, and what belonged to a cut that is gone has no place: the model is
// another one.
struct Recut {
  struct Stage {
    std::vector<store::NamedTensor> weights;
    std::vector<store::NamedTensor> optimizer;
  };
  std::vector<Stage> stages;  // point into the checkpoint and into `made`
  std::deque<Bytes> made;
  std::vector<std::string> changes;  // why it is not the same model any more
  std::vector<std::string> notes;    // what else is not as before
};

// As checkpoints of `version`, all stages, in a new run's folder of checkpoints.
Status write_recut(const Recut& recut, const spec::RunConfig& run, const std::string& folder, std::uint64_t version);

}  // namespace isthmus::stage
