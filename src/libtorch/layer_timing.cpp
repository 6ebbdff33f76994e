#include "libtorch/layer_timing.h"

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "model/torch.h"
#include "model/weight_work.h"

namespace isthmus::libtorch {

namespace {

using Clock = std::chrono::steady_clock;
using Unit = model::StageModel::Unit;

constexpr Duration kOneRun = std::chrono::milliseconds(20);
constexpr Duration kAllRuns = std::chrono::milliseconds(40);
constexpr Duration kTooLongToRepeat = seconds(1);
constexpr int kRuns = 3;

class Stopwatch {
 public:
  explicit Stopwatch(bool cuda) : cuda_(cuda) { (void)lap(); }
  Duration lap() {
    if (cuda_) torch::cuda::synchronize();
    const auto before = std::exchange(since_, Clock::now());
    return since_ - before;
  }

 private:
  const bool cuda_;
  Clock::time_point since_;
};

// F, I and W of so many sequences.
protocol::OperationCosts time_once(model::StageModel& model, const spec::RunSpec& run, Unit unit,
                                   std::int64_t sequences) {
  const std::int64_t length = std::int64_t{run.model.context} + 1;
  const at::Tensor ids = torch::arange(sequences * length, torch::TensorOptions(torch::kLong))
                             .remainder(run.model.vocabulary)
                             .view({sequences, length})
                             .to(model.device());
  const at::Tensor input =
      torch::arange(sequences * run.model.context * model.columns_alone(unit), torch::TensorOptions(torch::kFloat))
          .sin()
          .view({sequences * run.model.context, model.columns_alone(unit)})
          .to(model.device())
          .requires_grad_(true);
  model::WeightWorkList work;
  model::GradientSums sums(run.run.deterministic);
  protocol::OperationCosts costs;
  Stopwatch watch(model.device().is_cuda());
  const at::Tensor output = model.alone(unit, ids, input, &work);
  costs.forward = watch.lap();
  torch::autograd::backward({output}, {torch::full_like(output, 1e-3)});
  costs.input_gradient = watch.lap();
  const torch::NoGradGuard no_graph;
  sums.add(work);
  costs.weight_gradient = watch.lap();
  sums.clear(model.parameters());
  return costs;
}

protocol::OperationCosts time_unit(model::StageModel& model, const spec::RunSpec& run, Unit unit) {
  const std::int64_t all = run.train.sequences_per_microbatch;
  // The first run also pays for what is made once.
  protocol::OperationCosts best = time_once(model, run, unit, 1);
  if (best.total() > kTooLongToRepeat) return best * static_cast<double>(all);
  best = time_once(model, run, unit, 1);
  const std::int64_t sequences = std::clamp<std::int64_t>(kOneRun / std::max(best.total(), Duration(1)), 1, all);
  if (sequences > 1) best = {Duration::max(), Duration::max(), Duration::max()};
  Duration spent{};
  for (int i = 0; i < kRuns && spent < kAllRuns; ++i) {
    const protocol::OperationCosts costs = time_once(model, run, unit, sequences);
    spent += costs.total();
    best = {std::min(best.forward, costs.forward), std::min(best.input_gradient, costs.input_gradient),
            std::min(best.weight_gradient, costs.weight_gradient)};
  }
  return best * (static_cast<double>(all) / static_cast<double>(sequences));
}

}  // namespace

protocol::DeviceFigures time_layers(model::StageModel& model, const spec::RunSpec& run) {
  const torch::AutoGradMode graph(true);
  protocol::DeviceFigures device;
  device.layer = time_unit(model, run, Unit::kLayer);
  if (model.has_embedding()) device.embedding = time_unit(model, run, Unit::kEmbedding);
  if (model.has_head()) device.head = time_unit(model, run, Unit::kHead);
  return device;
}

}  // namespace isthmus::libtorch
