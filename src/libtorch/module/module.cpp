// The library's one entry (stage/torch_module.h).

#include <string_view>

#include "base/headers_digest.h"
#include "libtorch/layered_checkpoint.h"
#include "libtorch/merging.h"
#include "libtorch/recutting.h"
#include "libtorch/torch_stage.h"
#include "model/torch.h"
#include "stage/torch_module.h"

namespace isthmus::libtorch {

namespace {

class Module final : public stage::TorchModule {
 public:
  bool has_cuda() const override { return torch::cuda::is_available(); }
  Result<std::unique_ptr<runner::StageCompute>> make_stage(const spec::RunConfig& run, StageId stage,
                                                           ReplicaId replica) const override {
    return make_torch_stage(run, stage, replica);
  }
  Result<std::unique_ptr<stage::CheckpointModel>> open_checkpoint(const spec::RunConfig& run, const std::string& folder,
                                                                  std::uint64_t version) const override {
    return libtorch::open_checkpoint(run, folder, version);
  }
  stage::Recut recut(const spec::RunConfig& before, const store::WholeCheckpoint& checkpoint,
                     const spec::RunConfig& run) const override {
    return libtorch::recut(before, checkpoint, run);
  }
  stage::MergedModel merge(const spec::RunSpec& run,
                           const std::map<std::string, store::NamedTensor>& weights) const override {
    return stage::is_llama(run) ? llama_model(run, weights) : isthmus_model(run, weights);
  }
};

}  // namespace

}  // namespace isthmus::libtorch

extern "C" __attribute__((visibility("default"))) const isthmus::stage::TorchModule* isthmus_torch_module(
    const char* headers) {
  static const isthmus::libtorch::Module module;
  return std::string_view(headers) == isthmus::headers_digest() ? &module : nullptr;
}
