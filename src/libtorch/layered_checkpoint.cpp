#include "libtorch/layered_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "compress/boundary_codec.h"
#include "model/stage_model.h"
#include "model/torch.h"
#include "store/whole_checkpoint.h"

namespace isthmus::libtorch {

namespace {

class LayeredCheckpoint final : public stage::CheckpointModel {
 public:
  explicit LayeredCheckpoint(const spec::RunConfig& r)
      : run_(r),
        codec_(compress::make_boundary_codec(run_, compress::Direction::kForward)),
        shape_(compress::boundary_shape(run_)) {}

  void add(const spec::RunConfig::Stage& stage, const store::WholeCheckpoint& whole) {
    model::StageModel& model = models_.emplace_back(run_, stage.first_layer, stage.end_layer);
    for (auto& p : model.parameters())
      std::memcpy(p.master.mutable_data_ptr(), whole.weights.at(p.name).bytes.data(), p.master.nbytes());
    model::refresh_compute_copies(model.parameters());
  }

  Result<std::vector<float>> next(std::span<const std::uint32_t> ids) override {
    const torch::NoGradGuard no_graph;
    // No token sees a later one, so what fills the rest of the context does not matter.
    at::Tensor sequence = torch::zeros({1, std::int64_t{run_.model.context} + 1}, torch::kLong);
    std::copy(ids.begin(), ids.end(), sequence.data_ptr<std::int64_t>());
    at::Tensor stream = torch::zeros({1});
    for (std::size_t s = 0; s + 1 < models_.size(); ++s) {
      auto seen = across(models_[s].forward(sequence, stream, nullptr));
      if (!seen) return tl::unexpected(seen.error());
      stream = *seen;
    }
    const at::Tensor last = models_.back()
                                .logits(sequence, stream, nullptr)[static_cast<std::int64_t>(ids.size()) - 1]
                                .to(at::kFloat)
                                .contiguous();
    return std::vector<float>(last.const_data_ptr<float>(), last.const_data_ptr<float>() + last.numel());
  }

 private:
  // What the next stage sees of what this one sends.
  Result<at::Tensor> across(const at::Tensor& output) const {
    const at::Tensor values = output.to(at::kFloat).contiguous();
    const auto numbers = static_cast<std::size_t>(values.numel());
    at::Tensor seen = torch::empty_like(values);
    const auto status = codec_->decode(codec_->encode({values.const_data_ptr<float>(), numbers}, shape_, 0), shape_,
                                       {seen.data_ptr<float>(), numbers});
    if (!status) return tl::unexpected(status.error());
    return seen;
  }

  const spec::RunConfig run_;  // one sequence a microbatch
  std::vector<model::StageModel> models_;
  const std::unique_ptr<compress::BoundaryCodec> codec_;
  const compress::BoundaryShape shape_;
};

}  // namespace

Result<std::unique_ptr<stage::CheckpointModel>> open_checkpoint(const spec::RunConfig& trained,
                                                                const std::string& folder, std::uint64_t version) {
  const torch::NoGradGuard no_graph;
  const auto whole = store::read_whole_checkpoint(trained, folder, version, store::Keep::kWeights);
  if (!whole) return tl::unexpected(whole.error());
  at::set_num_threads(static_cast<int>(std::max(1u, trained.host.threads)));
  spec::RunConfig run = trained;
  run.train.sequences_per_microbatch = 1;
  run.host.device = "cpu";
  auto model = std::make_unique<LayeredCheckpoint>(run);
  for (const auto& stage : run.pipeline.stage) model->add(stage, *whole);
  return model;
}

}  // namespace isthmus::libtorch
