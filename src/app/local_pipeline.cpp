#include "app/local_pipeline.h"

#include <map>
#include <utility>

#include "app/clock.h"
#include "scheduler/learning_rate.h"
#include "scheduler/make_plan.h"
#include "stage/torch_stage.h"

namespace isthmus {

namespace {

std::uint64_t size_of(const SharedBytes& bytes) { return bytes ? bytes->size() : 0; }

}  // namespace

Result<LocalPipeline> LocalPipeline::open(const RunConfig& run) {
  std::vector<std::unique_ptr<StageCompute>> stages;
  for (std::uint32_t s = 0; s < run.pipeline.stage.size(); ++s) {
    // Nothing is ever saved, so there is no checkpoint folder.
    auto stage = make_torch_stage(run, StageId(s), ReplicaId(0), "");
    if (!stage) return tl::unexpected(stage.error());
    stages.push_back(std::move(*stage));
  }
  return LocalPipeline(run, std::move(stages));
}

LocalPipeline::LocalPipeline(const RunConfig& run, std::vector<std::unique_ptr<StageCompute>> stages)
    : run_(run), plan_(make_plan(run)), stages_(std::move(stages)), guard_(StepGuard::Options::of(run)), times_(stages_.size()) {}

template <class Work>
auto LocalPipeline::timed(Duration& sum, Work&& work) const {
  const auto now = [this] { return run_.pipeline.device == "cpu" ? processor_time() : monotonic_now(); };
  const Duration start = now();
  auto result = work();
  sum += now() - start;
  return result;
}

Status LocalPipeline::check_forward(std::size_t boundary, const EncodedTensor& tensor) const {
  if (size_of(tensor.values) != plan_.forward_bytes || size_of(tensor.tokens) != plan_.token_bytes)
    return fail("boundary {} was sent {} bytes of values and {} of token ids for a microbatch, the plan says {} and {}", boundary,
                size_of(tensor.values), size_of(tensor.tokens), plan_.forward_bytes, plan_.token_bytes);
  return {};
}

Result<MicrobatchLoss> LocalPipeline::forward(MicrobatchId m) {
  const bool training = plan_.is_training(step_, m);
  // Evaluation microbatches follow the training ones of the step; the stages count them from 0.
  const MicrobatchId index = training ? m : MicrobatchId(m.value - plan_.training_count(step_));
  EncodedTensor input;
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    if (!paths_.visits(m, StageId(static_cast<std::uint32_t>(s)))) continue;
    Duration evaluation{};
    auto result = timed(training ? times_[s].forward : evaluation, [&] { return stages_[s]->forward(step_, index, training, input); });
    if (!result) return tl::unexpected(result.error());
    if (result->loss) {
      result->loss->microbatch = m;
      return *result->loss;
    }
    if (auto fits = check_forward(s, result->output); !fits) return tl::unexpected(fits.error());
    input = std::move(result->output);
    if (training) {
      traffic_.forward += size_of(input.values);
      traffic_.tokens += size_of(input.tokens);
    }
  }
  return fail("the last stage has computed no loss");
}

Status LocalPipeline::backward(MicrobatchId m) {
  EncodedTensor gradient;
  for (std::size_t s = stages_.size(); s-- > 0;) {
    if (!paths_.visits(m, StageId(static_cast<std::uint32_t>(s)))) continue;
    auto result = timed(times_[s].input_gradient, [&] { return stages_[s]->input_gradient(m, gradient); });
    if (!result) return tl::unexpected(result.error());
    gradient = std::move(*result);
    if (s > 0) {
      if (size_of(gradient.values) != plan_.backward_bytes || gradient.tokens)
        return fail("boundary {} was sent back {} bytes for a microbatch, the plan says {}", s - 1, gradient.bytes(), plan_.backward_bytes);
      traffic_.backward += gradient.bytes();
    }
    timed(times_[s].weight_gradient, [&] {
      stages_[s]->weight_gradient(m);
      return Status();
    });
  }
  return {};
}

Result<StepResult> LocalPipeline::run_step() {
  step_ = StepId(step_.value + 1);
  paths_ = StepPaths(plan_, step_, {});
  std::map<MicrobatchId, MicrobatchLoss> losses;
  for (std::uint32_t i = 0; i < plan_.count(step_); ++i) {
    const MicrobatchId m(i);
    const auto loss = forward(m);
    if (!loss) return tl::unexpected(loss.error());
    losses[m] = *loss;
    // At once, not after all forwards: the sums are the same and one microbatch's activations are held instead of all.
    if (plan_.is_training(step_, m))
      if (auto back = backward(m); !back) return tl::unexpected(back.error());
  }
  std::vector<UnitNorm> norms;
  bool finite = true;
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    const auto prepared = timed(times_[s].update, [&] { return stages_[s]->prepare({}, true); });
    const double weight = paths_.weight(StageId(static_cast<std::uint32_t>(s)));
    for (const auto& unit : prepared.norms) norms.push_back({unit.unit, unit.norm2 * weight * weight});
    finite = finite && prepared.finite;
  }
  StepResult result = step_result(plan_, step_, run_.train.clip, norms, finite, losses, guard_, {});
  Commit commit;
  commit.step = step_;
  commit.scale = result.scale;
  commit.apply = result.apply;
  const double rate = learning_rate(run_, step_);
  for (std::size_t s = 0; s < stages_.size(); ++s)
    timed(times_[s].update, [&] {
      stages_[s]->apply(paths_.for_stage(commit, StageId(static_cast<std::uint32_t>(s))), rate);
      return Status();
    });
  guard_.apply(CommitRecord{commit, {}, {}, result.figures, result.reason});
  return result;
}

}  // namespace isthmus
