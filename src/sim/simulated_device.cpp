#include "sim/simulated_device.h"

#include <algorithm>
#include <utility>

namespace isthmus::sim {

SimulatedDevice::SimulatedDevice(World world, const Times& times, Tally& tally, PeerId peer, StageId stage,
                                 store::Journal& journal, store::CheckpointStore& checkpoints,
                                 const MakeRunner& make_runner)
    : world_(std::move(world)), times_(times), tally_(tally), peer_(peer), stage_id_(stage), runner_([&] {
        runner::JobRunner::Options options;
        options.stage = stage;
        options.make = [this]() -> Result<std::unique_ptr<runner::StageCompute>> {
          const protocol::DeviceFigures figures{
              .memory_bytes = 1 << 30, .layer = {times_.forward, times_.input_gradient, times_.weight_gradient}};
          auto made = std::make_unique<SimulatedStage>(world_.plan, world_.seed, stage_id_, figures);
          stage_ = made.get();
          return made;
        };
        options.saved = [this](protocol::SaveDone done) { saved_ = std::move(done); };
        return make_runner(world_.plan, std::move(options), &journal, &checkpoints);
      }()) {}

runner::StageReady SimulatedDevice::start(const std::vector<std::uint64_t>& versions) {
  const runner::StageReady ready = *runner_->start(versions);
  version_ = ready.version;
  return ready;
}

void SimulatedDevice::give(runner::Job job) {
  jobs_.push_back(std::move(job));
  if (!busy_) start_job();
}

Duration SimulatedDevice::time_of(const runner::Job& job) const {
  if (const auto* run = std::get_if<protocol::RunOperation>(&job)) {
    switch (run->task.operation) {
      case protocol::Operation::kForward:
        return times_.forward;
      case protocol::Operation::kInputGradient:
        return times_.input_gradient;
      case protocol::Operation::kWeightGradient:
        return times_.weight_gradient;
    }
  }
  // One checkpoint is written at a time, and none while another one is loaded.
  const Duration written = std::max(Duration(), writing_until_ - world_.now());
  if (std::holds_alternative<protocol::RunSave>(job)) return written + std::chrono::milliseconds(1);
  if (std::holds_alternative<protocol::RunLoad>(job)) return written + std::chrono::milliseconds(50);
  return std::chrono::milliseconds(1);
}

// Draws only where there is some, so that it changes nothing elsewhere.
double SimulatedDevice::noise() {
  const double share =
      times_.noise > 0 ? times_.noise * (2e-6 * static_cast<double>(world_.draws.below(1'000'000)) - 1) : 0;
  return (1 + share) * (world_.draws.chance(times_.hiccups) ? 2 : 1);
}

void SimulatedDevice::start_job() {
  busy_ = true;
  Duration time = seconds(to_seconds(time_of(jobs_.front())) * world_.slowdown());
  if (const auto* run = std::get_if<protocol::RunOperation>(&jobs_.front())) {
    ++tally_.begun[static_cast<std::size_t>(run->task.operation)];
    time = seconds(to_seconds(time) * noise());
  }
  world_.later(world_.now() + time, [this] { return finish_job(); });
}

std::optional<protocol::JobResult> SimulatedDevice::finish_job() {
  const runner::Job job = std::move(jobs_.front());
  jobs_.pop_front();
  busy_ = false;
  auto result = runner_->run(job);
  if (!result) {
    world_.checkers.violation("a stage cannot go on: " + result.error().message);
    return std::nullopt;
  }
  check(job, *result);
  if (!jobs_.empty()) start_job();
  return std::move(*result);
}

void SimulatedDevice::write(std::function<void()> written) {
  writing_until_ = world_.now() + std::chrono::milliseconds(20 + static_cast<int>(world_.draws.below(1000)));
  world_.later(writing_until_, [this, written = std::move(written)]() -> std::optional<protocol::JobResult> {
    written();
    return *std::exchange(saved_, std::nullopt);
  });
}

// --------------------------------------------------------------------------------------------------- checks

void SimulatedDevice::holds(std::uint64_t version) {
  version_ = version;
  world_.checkers.holds(peer_, stage_id_, version, stage_->weights());
}

// Held-out ones show in no weights.
void SimulatedDevice::check_tokens(const protocol::RunOperation& run) {
  const auto sample = protocol::Sample::of(world_.plan, run.tag.step, run.task.microbatch);
  if (decode_tokens(run.tensor) != head_input(world_.seed, sample))
    world_.checkers.violation(fmt::format("worker {} reads other token ids than those of microbatch {} in step {}",
                                          peer_, run.task.microbatch, run.tag.step));
}

void SimulatedDevice::check_step(const protocol::Commit& commit) {
  holds(commit.step.value);
  if (world_.plan.stages[stage_id_.value].local && world_.plan.syncs(commit.step))
    world_.checkers.agrees(peer_, stage_id_, commit, stage_->anchor());
}

void SimulatedDevice::check(const runner::Job& job, const std::optional<protocol::JobResult>& result) {
  const bool local = world_.plan.stages[stage_id_.value].local;
  if (const auto* run = std::get_if<protocol::RunOperation>(&job)) {
    tally_.computed += run->task.operation == protocol::Operation::kWeightGradient ? 1 : 0;
    if (run->task.operation == protocol::Operation::kForward) check_tokens(*run);
  } else if (const auto* apply = std::get_if<protocol::RunApply>(&job)) {
    check_step(apply->commit);
    const auto& taken = stage_->taken();
    if (local && taken.apply) world_.checkers.weighs(peer_, apply->commit.step, taken.scale, taken.microbatches);
  } else if (const auto* follow = std::get_if<protocol::RunFollow>(&job)) {
    check_step(follow->commit);
  } else if (const auto* snapshot = std::get_if<protocol::RunSnapshot>(&job)) {
    if (snapshot->version != (local ? world_.plan.last_sync(version_) : version_))
      world_.checkers.violation("a snapshot of another version than it says");
  } else if (std::holds_alternative<protocol::RunLoad>(job) || std::holds_alternative<protocol::RunRestore>(job)) {
    if (const auto& loaded = std::get<protocol::LoadDone>(*result); loaded.error.empty()) holds(loaded.version);
  }
}

}  // namespace isthmus::sim
