#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/time.h"
#include "protocol/plan.h"
#include "runner/job_runner.h"
#include "sim/checkers.h"
#include "sim/draws.h"
#include "sim/simulated_stage.h"

namespace isthmus::sim {

// The device of one life of a worker: the production job runner (runner/job_runner.h) over a stage of numbers, one job
// after the other, each in its time. What it holds is checked after every job.
class SimulatedDevice {
 public:
  using MakeRunner = std::function<std::unique_ptr<runner::JobRunner>(const protocol::Plan&, runner::JobRunner::Options,
                                                                      store::Journal*, store::CheckpointStore*)>;
  // The simulation around it; outlives it.
  struct World {
    const protocol::Plan& plan;
    std::uint64_t seed;
    Draws& draws;
    Checkers& checkers;
    std::function<Time()> now;
    // Has `then` called when it is due, in the worker's process if that still lives, and its result told to the worker.
    std::function<void(Time due, std::function<std::optional<protocol::JobResult>()> then)> later;
    std::function<double()> slowdown;
  };
  struct Times {
    Duration forward{}, input_gradient{}, weight_gradient{};  // of one microbatch
    double noise = 0;                                         // they are up to so much longer or shorter, as a share
    double hiccups = 0;                                       // … and this share of them twice as long
  };
  // What it has done; outlives it.
  struct Tally {
    std::uint64_t computed = 0;            // weight gradients
    std::array<std::uint64_t, 3> begun{};  // by Operation
  };

  SimulatedDevice(World world, const Times& times, Tally& tally, PeerId peer, StageId stage, store::Journal& journal,
                  store::CheckpointStore& checkpoints, const MakeRunner& make_runner);
  SimulatedDevice(const SimulatedDevice&) = delete;

  // Loads the newest of these versions.
  runner::StageReady start(const std::vector<std::uint64_t>& versions);
  void give(runner::Job job);
  // A checkpoint is being written while the device goes on: calls back when it is.
  void write(std::function<void()> written);
  const SimulatedStage& stage() const { return *stage_; }

 private:
  void start_job();
  std::optional<protocol::JobResult> finish_job();
  void check(const runner::Job& job, const std::optional<protocol::JobResult>& result);
  void check_tokens(const protocol::RunOperation& run);
  void check_step(const protocol::Commit& commit);
  void holds(std::uint64_t version);
  Duration time_of(const runner::Job& job) const;
  double noise();

  const World world_;
  const Times times_;
  Tally& tally_;
  const PeerId peer_;
  const StageId stage_id_;
  SimulatedStage* stage_ = nullptr;  // the runner's
  std::optional<protocol::SaveDone> saved_;
  const std::unique_ptr<runner::JobRunner> runner_;
  std::uint64_t version_ = 0;
  std::deque<runner::Job> jobs_;
  bool busy_ = false;
  Time writing_until_{};  // the newest checkpoint
};

}  // namespace isthmus::sim
