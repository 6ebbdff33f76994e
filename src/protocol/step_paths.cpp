#include "protocol/step_paths.h"

#include <algorithm>
#include <utility>

namespace isthmus::protocol {

namespace {

constexpr std::uint64_t kFullEvery = 10;  // steps

}  // namespace

std::uint32_t skips_max(std::size_t stages) { return static_cast<std::uint32_t>(stages / 3); }

bool may_be_absent(const Plan& plan, const std::vector<StageId>& stages) {
  if (stages.size() > skips_max(plan.stages.size())) return false;
  return std::ranges::all_of(stages, [&](StageId stage) {
    const bool inner = stage != StageId(0) && stage < plan.last_stage();
    return inner && std::ranges::find(stages, StageId(stage.value + 1)) == stages.end();
  });
}

bool StepPaths::Skips::contains(StageId stage) const { return std::ranges::find(stages, stage) != stages.end(); }

StepPaths::StepPaths(const Plan& plan, StepId step, const std::vector<StageId>& absent)
    : skips_(plan.count(step)), training_(plan.training_count(step)) {
  const auto stages = static_cast<std::uint32_t>(plan.stages.size());
  const std::uint32_t inner = stages > 2 ? stages - 2 : 0;
  if (!absent.empty()) {
    for (auto& skips : skips_) skips.stages = absent;
  } else if (inner > 0 && training_ > 0 && step.value % kFullEvery != 0) {
    // Slots in the order of their stages are dealt to the microbatches in turn, round after round. A stage is left out
    // by half of the step at most, so between two slots of one microbatch there are two other stages' worth of slots:
    // never neighbours. Which stages are left out once more moves on from step to step.
    const std::uint32_t slots = std::min({plan.planned_skips, skips_max(stages) * training_, inner * (training_ / 2)});
    std::uint32_t dealt = 0;
    for (std::uint32_t s = 0; s < inner; ++s) {
      const bool once_more = (s + step.value * (slots % inner)) % inner < slots % inner;
      for (std::uint32_t n = slots / inner + (once_more ? 1 : 0); n > 0; --n)
        skips_[dealt++ % training_].stages.push_back(StageId(s + 1));
    }
  }
  count_.assign(stages, 0);
  training_count_.assign(stages, 0);
  for (std::uint32_t m = 0; m < skips_.size(); ++m)
    for (std::uint32_t s = 0; s < stages; ++s)
      if (visits(MicrobatchId(m), StageId(s))) {
        ++count_[s];
        training_count_[s] += m < training_ ? 1 : 0;
      }
}

StageId StepPaths::neighbour(MicrobatchId m, StageId stage, int step) const {
  do stage.value += static_cast<std::uint32_t>(step);
  while (!visits(m, stage));
  return stage;
}

bool StepPaths::meet(StageId a, StageId b) const {
  if (a > b) std::swap(a, b);
  if (a == b || b.value >= stages()) return false;
  for (std::uint32_t m = 0; m < skips_.size(); ++m)
    if (visits(MicrobatchId(m), a) && next(MicrobatchId(m), a) == b) return true;
  return false;
}

std::uint32_t StepPaths::skipped() const {
  std::uint32_t skipped = 0;
  for (const auto visits : training_count_) skipped += training_ - visits;
  return skipped;
}

double StepPaths::skip_ratio() const {
  return training_ == 0
             ? 0.0
             : static_cast<double>(skipped()) / (static_cast<double>(training_) * static_cast<double>(stages()));
}

double StepPaths::weight(StageId stage) const {
  return training_count(stage) == 0 ? 1.0 : static_cast<double>(training_) / training_count(stage);
}

Commit StepPaths::for_stage(Commit commit, StageId stage) const {
  commit.apply = commit.apply && training_count(stage) > 0;
  commit.scale *= weight(stage);
  return commit;
}

Commit StepPaths::for_replica(const Commit& commit, StageId stage, std::uint32_t own) const {
  Commit replica = for_stage(commit, stage);
  replica.apply = replica.apply && own > 0;
  if (own > 0) replica.scale *= static_cast<double>(training_count(stage)) / own;
  return replica;
}

}  // namespace isthmus::protocol
