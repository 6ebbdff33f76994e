// What a build without libtorch has instead of torch_stage.cpp.

#include "stage/torch_stage.h"

namespace isthmus::stage {

Result<std::unique_ptr<runner::StageCompute>> make_torch_stage(const spec::RunConfig& run, StageId, ReplicaId) {
  return fail("pipeline.device = \"{}\": this program was built without libtorch; expected \"emulated\"",
              run.host.device);
}

}  // namespace isthmus::stage
