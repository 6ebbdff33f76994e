#include "app/local_pipeline.h"

#include <map>
#include <utility>

#include "app/clock.h"
#include "base/counter_random.h"
#include "scheduler/learning_rate.h"
#include "scheduler/make_plan.h"
#include "stage/torch_stage.h"

namespace isthmus {

namespace {

std::uint64_t size_of(const SharedBytes& bytes) { return bytes ? bytes->size() : 0; }

}  // namespace

Result<LocalPipeline> LocalPipeline::open(const RunConfig& run, const std::optional<Absence>& absence) {
  std::vector<Replicas> stages(run.pipeline.stage.size());
  for (std::uint32_t s = 0; s < stages.size(); ++s)
    for (std::uint32_t r = 0; r < run.pipeline.stage[s].replicas; ++r) {
      // Nothing is ever saved, so there is no checkpoint folder.
      auto replica = make_torch_stage(run, StageId(s), ReplicaId(r), "");
      if (!replica) return tl::unexpected(replica.error());
      stages[s].push_back(std::move(*replica));
    }
  return LocalPipeline(run, absence, std::move(stages));
}

LocalPipeline::LocalPipeline(const RunConfig& run, const std::optional<Absence>& absence, std::vector<Replicas> stages)
    : run_(run), absence_(absence), plan_(make_plan(run)), stages_(std::move(stages)), guard_(StepGuard::Options::of(run)), times_(stages_.size()) {}

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
    auto result = timed(training ? times_[s].forward : evaluation, [&] { return replica_of(s, m).forward(step_, index, training, input); });
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
    auto result = timed(times_[s].input_gradient, [&] { return replica_of(s, m).input_gradient(m, gradient); });
    if (!result) return tl::unexpected(result.error());
    gradient = std::move(*result);
    if (s > 0) {
      if (size_of(gradient.values) != plan_.backward_bytes || gradient.tokens)
        return fail("boundary {} was sent back {} bytes for a microbatch, the plan says {}", s - 1, gradient.bytes(), plan_.backward_bytes);
      traffic_.backward += gradient.bytes();
    }
    timed(times_[s].weight_gradient, [&] {
      replica_of(s, m).weight_gradient(m);
      return Status();
    });
  }
  return {};
}

// Every replica as many as the others, in another order at every stage and step, as a run's routing mixes them.
void LocalPipeline::deal() {
  dealt_.assign(stages_.size(), std::vector<std::uint32_t>(plan_.count(step_), 0));
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    const CounterRandom random(run_.run.seed, fmt::format("replicas of stage {} in step {}", s, step_));
    auto& dealt = dealt_[s];
    for (std::size_t m = 0; m < dealt.size(); ++m) dealt[m] = static_cast<std::uint32_t>(m % stages_[s].size());
    for (std::uint64_t m = dealt.size(); m > 1; --m) std::swap(dealt[m - 1], dealt[random.below(m, m)]);
  }
}

// Training microbatches of the step that are the replica's.
std::uint32_t LocalPipeline::share_of(std::size_t stage, std::size_t replica) const {
  std::uint32_t share = 0;
  for (std::uint32_t m = 0; m < plan_.training_count(step_); ++m)
    share += paths_.visits(MicrobatchId(m), StageId(static_cast<std::uint32_t>(stage))) && dealt_[stage][m] == replica;
  return share;
}

std::vector<UnitNorm> LocalPipeline::prepare(std::size_t stage, bool& finite) {
  const auto& replicas = stages_[stage];
  if (plan_.stages[stage].local) {
    std::vector<std::vector<UnitNorm>> norms;
    std::vector<OwnNorms> own;
    for (const auto& replica : replicas) {
      const auto prepared = replica->prepare({}, true);
      finite = finite && prepared.finite;
      norms.push_back(prepared.norms);
    }
    for (std::size_t r = 0; r < replicas.size(); ++r) own.push_back({share_of(stage, r), norms[r]});
    return mean_norms(own);
  }
  // The sum of their sums, as they would combine it; a sole replica has nobody to add.
  std::vector<SharedBytes> parts;
  for (const auto& replica : replicas)
    if (replicas.size() > 1) {
      auto sum = replica->close();
      finite = finite && sum.finite;
      parts.push_back(std::move(sum.bytes));
    }
  std::vector<SharedBytes> totals;
  if (!parts.empty()) totals.push_back(replicas.front()->add(parts));
  std::vector<UnitNorm> norms;
  for (const auto& replica : replicas) {
    auto prepared = replica->prepare(totals, true);
    finite = finite && prepared.finite;
    norms = std::move(prepared.norms);
  }
  return norms;
}

void LocalPipeline::agree(std::size_t stage) {
  const std::uint64_t version = step_.value - 1;
  const auto& replicas = stages_[stage];
  std::vector<std::vector<SharedBytes>> updates(plan_.update_bytes(StageId(static_cast<std::uint32_t>(stage)), version).size());
  for (const auto& replica : replicas) {
    const auto own = replica->updates(version);
    for (std::size_t slice = 0; slice < own.size(); ++slice) updates[slice].push_back(own[slice]);
  }
  for (const auto& replica : replicas) {
    for (std::uint32_t slice = 0; slice < updates.size(); ++slice) (void)replica->outer()->agree(version, slice, updates[slice]);
    replica->settle_sync();
  }
}

Result<StepResult> LocalPipeline::run_step() {
  step_ = StepId(step_.value + 1);
  std::vector<StageId> absent;
  if (absence_ && absence_->covers(step_.value)) absent.push_back(StageId(absence_->stage));
  paths_ = StepPaths(plan_, step_, absent);
  deal();
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
    const auto prepared = timed(times_[s].update, [&] { return prepare(s, finite); });
    const double weight = paths_.weight(StageId(static_cast<std::uint32_t>(s)));
    for (const auto& unit : prepared) norms.push_back({unit.unit, unit.norm2 * weight * weight});
  }
  StepResult result = step_result(plan_, step_, run_.train.clip, norms, finite, losses, guard_, absent);
  Commit commit;
  commit.step = step_;
  commit.scale = result.scale;
  commit.apply = result.apply;
  commit.absent = absent;
  const double rate = learning_rate(run_, step_);
  for (std::size_t s = 0; s < stages_.size(); ++s)
    timed(times_[s].update, [&] {
      const bool local = plan_.stages[s].local;
      if (local && plan_.syncs(step_)) agree(s);
      for (std::size_t r = 0; r < stages_[s].size(); ++r) {
        Commit own = paths_.for_stage(commit, StageId(static_cast<std::uint32_t>(s)));
        // A replica that steps on its own counts its microbatches as if they were all of the stage's.
        if (const std::uint32_t share = local ? share_of(s, r) : 0; share > 0)
          own.scale *= static_cast<double>(paths_.training_count(StageId(static_cast<std::uint32_t>(s)))) / share;
        else if (local)
          own.apply = false;
        stages_[s][r]->apply(own, rate);
      }
      return Status();
    });
  guard_.apply(CommitRecord{commit, {}, {}, result.figures, result.reason});
  return result;
}

}  // namespace isthmus
