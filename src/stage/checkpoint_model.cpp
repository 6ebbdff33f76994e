#include "stage/checkpoint_model.h"

#include <torch/torch.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "compress/boundary_codec.h"
#include "model/stage_model.h"
#include "store/whole_checkpoint.h"

namespace isthmus::stage {

struct CheckpointModel::Stages {
  explicit Stages(const spec::RunConfig& r)
      : run(r),
        codec(compress::make_boundary_codec(run, compress::Direction::kForward)),
        shape(compress::boundary_shape(run)) {}

  // What the next stage sees of what this one sends.
  Result<at::Tensor> across(const at::Tensor& output) const {
    const at::Tensor values = output.to(at::kFloat).contiguous();
    const auto numbers = static_cast<std::size_t>(values.numel());
    at::Tensor seen = torch::empty_like(values);
    const auto status = codec->decode(codec->encode({values.const_data_ptr<float>(), numbers}, shape, 0), shape,
                                      {seen.data_ptr<float>(), numbers});
    if (!status) return tl::unexpected(status.error());
    return seen;
  }

  const spec::RunConfig run;  // one sequence a microbatch
  std::vector<model::StageModel> models;
  const std::unique_ptr<compress::BoundaryCodec> codec;
  const compress::BoundaryShape shape;
};

CheckpointModel::CheckpointModel(std::unique_ptr<Stages> stages) : stages_(std::move(stages)) {}
CheckpointModel::CheckpointModel(CheckpointModel&&) noexcept = default;
CheckpointModel::~CheckpointModel() = default;

Result<CheckpointModel> CheckpointModel::open(const spec::RunConfig& trained, const std::string& folder,
                                              std::uint64_t version) {
  const torch::NoGradGuard no_graph;
  const auto whole = store::read_whole_checkpoint(trained, folder, version, store::Keep::kWeights);
  if (!whole) return tl::unexpected(whole.error());
  at::set_num_threads(static_cast<int>(std::max(1u, trained.host.threads)));
  spec::RunConfig run = trained;
  run.train.sequences_per_microbatch = 1;
  run.host.device = "cpu";
  auto stages = std::make_unique<Stages>(run);
  for (const auto& stage : run.pipeline.stage) {
    model::StageModel& model = stages->models.emplace_back(run, stage.first_layer, stage.end_layer);
    for (auto& p : model.parameters())
      std::memcpy(p.master.mutable_data_ptr(), whole->weights.at(p.name).bytes.data(), p.master.nbytes());
    model::refresh_compute_copies(model.parameters());
  }
  return CheckpointModel(std::move(stages));
}

Result<std::vector<float>> CheckpointModel::next(std::span<const std::uint32_t> ids) {
  const torch::NoGradGuard no_graph;
  const auto& m = stages_->run.model;
  // No token sees a later one, so what fills the rest of the context does not matter.
  at::Tensor sequence = torch::zeros({1, std::int64_t{m.context} + 1}, torch::kLong);
  std::copy(ids.begin(), ids.end(), sequence.data_ptr<std::int64_t>());
  at::Tensor stream = torch::zeros({1});
  auto& models = stages_->models;
  for (std::size_t s = 0; s + 1 < models.size(); ++s) {
    auto seen = stages_->across(models[s].forward(sequence, stream, nullptr));
    if (!seen) return tl::unexpected(seen.error());
    stream = *seen;
  }
  const at::Tensor last = models.back()
                              .logits(sequence, stream, nullptr)[static_cast<std::int64_t>(ids.size()) - 1]
                              .to(at::kFloat)
                              .contiguous();
  return std::vector<float>(last.const_data_ptr<float>(), last.const_data_ptr<float>() + last.numel());
}

}  // namespace isthmus::stage
