#include "lab/local_pipeline.h"

#include <map>
#include <utility>

#include "base/counter_random.h"
#include "process/clock.h"
#include "scheduler/planner/make_plan.h"
#include "spec/learning_rate.h"
#include "stage/torch_module.h"

namespace isthmus::lab {

namespace {

// A job that has such a result. The only ones that make a replica unable to go on are not given here.
template <class Done>
Done carry_out(runner::JobRunner& replica, const runner::Job& job) {
  return std::get<Done>(std::move(**replica.run(job)));
}

}  // namespace

Result<LocalPipeline> LocalPipeline::open(const spec::RunConfig& run, const std::optional<config::Absence>& absence) {
  const auto torch = stage::torch_module();
  if (!torch) return tl::unexpected(torch.error());
  auto source = data::TokenSource::open(run);
  if (!source) return tl::unexpected(source.error());
  const protocol::Plan plan = planner::make_plan(run);
  std::vector<Replicas> stages(plan.stages.size());
  for (std::uint32_t s = 0; s < stages.size(); ++s)
    for (std::uint32_t r = 0; r < plan.stages[s].replicas; ++r) {
      runner::JobRunner::Options options;
      options.stage = StageId(s);
      options.make = [torch, run, s, r] { return (*torch)->make_stage(run, StageId(s), ReplicaId(r)); };
      options.learning_rate = [run](StepId step) { return spec::learning_rate(run, step); };
      auto replica = std::make_unique<runner::JobRunner>(plan, std::move(options), nullptr, nullptr);
      if (auto ready = replica->start(); !ready) return tl::unexpected(ready.error());
      stages[s].push_back(std::move(replica));
    }
  return LocalPipeline(run, absence, plan, std::move(*source), std::move(stages));
}

LocalPipeline::LocalPipeline(const spec::RunConfig& run, const std::optional<config::Absence>& absence,
                             const protocol::Plan& plan, data::TokenSource source, std::vector<Replicas> stages)
    : run_(run),
      absence_(absence),
      plan_(plan),
      source_(std::move(source)),
      stages_(std::move(stages)),
      guard_(coordinator::StepGuard::Options::of(run)),
      times_(stages_.size()) {}

template <class Work>
auto LocalPipeline::timed(Duration& sum, Work&& work) const {
  const auto now = [this] { return run_.host.device == "cpu" ? process::processor_time() : process::monotonic_now(); };
  const Duration start = now();
  auto result = work();
  sum += now() - start;
  return result;
}

Status LocalPipeline::check_forward(std::size_t boundary, const compress::EncodedTensor& tensor) const {
  if (tensor.values->size() != plan_.forward_bytes || tensor.tokens->size() != plan_.token_bytes)
    return fail("boundary {} was sent {} bytes of values and {} of token ids for a microbatch, the plan says {} and {}",
                boundary, tensor.values->size(), tensor.tokens->size(), plan_.forward_bytes, plan_.token_bytes);
  return {};
}

compress::EncodedTensor LocalPipeline::tokens(MicrobatchId m) const {
  const auto sample = protocol::Sample::of(plan_, step_, m);
  return protocol::token_ids(sample, sample.step == protocol::kHeldOut
                                         ? source_.evaluation(sample.microbatch)
                                         : source_.training(sample.step, sample.microbatch))
      .tensor;
}

Result<protocol::MicrobatchLoss> LocalPipeline::forward(MicrobatchId m) {
  const bool training = plan_.is_training(step_, m);
  compress::EncodedTensor input = tokens(m);
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    if (!paths_.visits(m, StageId(static_cast<std::uint32_t>(s)))) continue;
    Duration evaluation{};
    const protocol::RunOperation run{tag(), {protocol::Operation::kForward, m}, training, std::move(input)};
    auto done = timed(training ? times_[s].forward : evaluation,
                      [&] { return carry_out<protocol::OperationDone>(replica_of(s, m), run); });
    if (!done.error.empty()) return fail("{}", done.error);
    if (!done.loss.empty()) return done.loss.front();
    if (auto fits = check_forward(s, done.tensor); !fits) return tl::unexpected(fits.error());
    input = std::move(done.tensor);
    if (training) {
      traffic_.forward += input.values->size();
      traffic_.tokens += input.tokens->size();
    }
  }
  return fail("the last stage has computed no loss");
}

Status LocalPipeline::backward(MicrobatchId m) {
  compress::EncodedTensor gradient;
  for (std::size_t s = stages_.size(); s-- > 0;) {
    if (!paths_.visits(m, StageId(static_cast<std::uint32_t>(s)))) continue;
    const protocol::RunOperation back{tag(), {protocol::Operation::kInputGradient, m}, true, std::move(gradient)};
    auto done =
        timed(times_[s].input_gradient, [&] { return carry_out<protocol::OperationDone>(replica_of(s, m), back); });
    if (!done.error.empty()) return fail("{}", done.error);
    gradient = std::move(done.tensor);
    if (s > 0) {
      if (gradient.values->size() != plan_.backward_bytes || gradient.tokens)
        return fail("boundary {} was sent back {} bytes for a microbatch, the plan says {}", s - 1, gradient.bytes(),
                    plan_.backward_bytes);
      traffic_.backward += gradient.bytes();
    }
    const protocol::RunOperation weights{tag(), {protocol::Operation::kWeightGradient, m}, true, {}};
    timed(times_[s].weight_gradient, [&] { return carry_out<protocol::OperationDone>(replica_of(s, m), weights); });
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

std::vector<protocol::UnitNorm> LocalPipeline::prepare(std::size_t stage, bool& finite) {
  const auto& replicas = stages_[stage];
  // The sum of their sums, as they would combine it; who steps on its own, or alone, has nobody to add.
  const bool local = plan_.stages[stage].local;
  std::vector<SharedBytes> parts;
  if (!local && replicas.size() > 1)
    for (const auto& replica : replicas) {
      auto closed = carry_out<protocol::CloseDone>(*replica, protocol::RunClose{tag(), {}});
      finite = finite && closed.finite;
      parts.push_back(std::move(closed.sum));
    }
  std::vector<SharedBytes> totals;
  if (!parts.empty())
    totals.push_back(carry_out<protocol::AddDone>(*replicas.front(), protocol::RunAdd{tag(), {}, parts}).total);
  std::vector<coordinator::OwnNorms> own;
  std::vector<std::vector<protocol::UnitNorm>> norms;
  for (const auto& replica : replicas) {
    auto prepared = carry_out<protocol::PrepareDone>(*replica, protocol::RunPrepare{tag(), {}, totals});
    finite = finite && prepared.finite;
    norms.push_back(std::move(prepared.norms));
  }
  if (!local) return norms.front();
  for (std::size_t r = 0; r < replicas.size(); ++r) own.push_back({share_of(stage, r), norms[r]});
  return coordinator::mean_norms(own);
}

void LocalPipeline::agree(std::size_t stage) {
  const std::uint64_t version = step_.value - 1;
  const auto& replicas = stages_[stage];
  std::vector<std::vector<SharedBytes>> updates(
      plan_.update_bytes(StageId(static_cast<std::uint32_t>(stage)), version).size());
  for (const auto& replica : replicas) {
    const auto own = carry_out<protocol::UpdateDone>(*replica, protocol::RunUpdate{version}).updates;
    for (std::size_t slice = 0; slice < own.size(); ++slice) updates[slice].push_back(own[slice]);
  }
  for (const auto& replica : replicas)
    for (std::uint32_t slice = 0; slice < updates.size(); ++slice)
      (void)replica->run(protocol::RunAgree{version, slice, 0, updates[slice]});
}

Result<coordinator::StepResult> LocalPipeline::run_step() {
  step_ = StepId(step_.value + 1);
  std::vector<StageId> absent;
  if (absence_ && absence_->covers(step_.value)) absent.push_back(StageId(absence_->stage));
  paths_ = protocol::StepPaths(plan_, step_, absent);
  deal();
  std::map<MicrobatchId, protocol::MicrobatchLoss> losses;
  for (std::uint32_t i = 0; i < plan_.count(step_); ++i) {
    const MicrobatchId m(i);
    const auto loss = forward(m);
    if (!loss) return tl::unexpected(loss.error());
    losses[m] = *loss;
    // At once, not after all forwards: the sums are the same and one microbatch's activations are held instead of all.
    if (plan_.is_training(step_, m))
      if (auto back = backward(m); !back) return tl::unexpected(back.error());
  }
  std::vector<protocol::UnitNorm> norms;
  bool finite = true;
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    const auto prepared = timed(times_[s].update, [&] { return prepare(s, finite); });
    const double weight = paths_.weight(StageId(static_cast<std::uint32_t>(s)));
    for (const auto& unit : prepared) norms.push_back({unit.unit, unit.norm2 * weight * weight});
  }
  coordinator::StepResult result =
      coordinator::step_result(plan_, step_, run_.train.clip, norms, finite, losses, guard_, absent);
  protocol::Commit commit;
  commit.step = step_;
  commit.scale = result.scale;
  commit.apply = result.apply;
  commit.absent = absent;
  for (std::size_t s = 0; s < stages_.size(); ++s)
    timed(times_[s].update, [&] {
      const bool local = plan_.stages[s].local, sync = local && plan_.syncs(step_);
      const StageId stage(static_cast<std::uint32_t>(s));
      if (sync) agree(s);
      for (std::size_t r = 0; r < stages_[s].size(); ++r)
        (void)stages_[s][r]->run(protocol::RunApply{
            local ? paths_.for_replica(commit, stage, share_of(s, r)) : paths_.for_stage(commit, stage), sync});
      return Status();
    });
  guard_.apply(coordinator::CommitRecord{commit, {}, {}, result.figures, result.reason});
  return result;
}

}  // namespace isthmus::lab
