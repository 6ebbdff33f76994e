// What the simulator is for: a mistake in the code that workers run shows in it.
#include <gtest/gtest.h>

#include <memory>

#include "sim/simulation.h"

namespace isthmus::sim {
namespace {

// Takes every step twice as far.
class DoublingRunner final : public runner::JobRunner {
 public:
  using JobRunner::JobRunner;
  Result<std::optional<protocol::JobResult>> run(const runner::Job& job) override {
    auto own = job;
    if (auto* apply = std::get_if<protocol::RunApply>(&own)) apply->commit.scale *= 2;
    return JobRunner::run(own);
  }
};

// Leaves the first microbatch of every step out and says it did not.
class ForgetfulRunner final : public runner::JobRunner {
 public:
  using JobRunner::JobRunner;
  Result<std::optional<protocol::JobResult>> run(const runner::Job& job) override {
    const auto* operation = std::get_if<protocol::RunOperation>(&job);
    const bool weights = operation && operation->task.operation == protocol::Operation::kWeightGradient;
    if (weights && operation->task.microbatch == MicrobatchId(0))
      return std::optional<protocol::JobResult>(protocol::OperationDone{operation->tag, operation->task, {}, {}, {}});
    return JobRunner::run(job);
  }
};

// Reads the microbatch before its own, in every step once.
class InattentiveRunner final : public runner::JobRunner {
 public:
  using JobRunner::JobRunner;
  Result<std::optional<protocol::JobResult>> run(const runner::Job& job) override {
    auto own = job;
    if (auto* operation = std::get_if<protocol::RunOperation>(&own))
      if (operation->training && operation->task == protocol::Task{protocol::Operation::kForward, MicrobatchId(1)} &&
          operation->tensor.values->empty())
        operation->tensor = token_ids(3, {operation->tag.step, MicrobatchId(0)}).tensor;
    return JobRunner::run(own);
  }
};

protocol::Plan small(bool local) {
  protocol::Plan plan = draw_plan(1);
  plan.stages.resize(3);
  plan.planned_skips = 0;
  plan.skip_after = {};
  plan.microbatches = 4;
  plan.sync_every = local ? 2 : 0;
  for (auto& stage : plan.stages) {
    stage.replicas = 2;
    stage.local = local;
    stage.update_bytes.assign(local ? 3 : 0, 12);
    stage.last_update_bytes.assign(local ? 2 : 0, 12);
  }
  return plan;
}

template <class Runner>
std::vector<std::string> violations_with(bool local) {
  SimulationOptions options;
  options.kinds = {FaultKind::kLoss};
  options.make_runner = [](const protocol::Plan& plan, runner::JobRunner::Options own, store::Journal* journal,
                           store::CheckpointStore* checkpoints) {
    return std::make_unique<Runner>(plan, std::move(own), journal, checkpoints);
  };
  return simulate(small(local), 3, options).violations;
}

TEST(PlantedLies, ARunnerThatTellsTheTruthIsNotAccused) {
  EXPECT_TRUE(violations_with<runner::JobRunner>(false).empty());
  EXPECT_TRUE(violations_with<runner::JobRunner>(true).empty());
}

TEST(PlantedLies, AWeightThatIsDoubledIsFound) {
  EXPECT_FALSE(violations_with<DoublingRunner>(false).empty());
  EXPECT_FALSE(violations_with<DoublingRunner>(true).empty());
}

TEST(PlantedLies, AMicrobatchThatIsForgottenIsFound) {
  EXPECT_FALSE(violations_with<ForgetfulRunner>(false).empty());
  EXPECT_FALSE(violations_with<ForgetfulRunner>(true).empty());
}

TEST(PlantedLies, AMicrobatchThatIsReadForAnotherIsFound) {
  EXPECT_FALSE(violations_with<InattentiveRunner>(false).empty());
}

TEST(PlantedLies, ARuleByWhichNobodyDialsIsFound) {
  SimulationOptions options;
  options.kinds = {FaultKind::kLoss};
  options.dial = false;
  const auto result = simulate(small(false), 3, options);
  ASSERT_FALSE(result.violations.empty());
  EXPECT_NE(result.violations.front().find("has not finished"), std::string::npos) << result.violations.front();
}

}  // namespace
}  // namespace isthmus::sim
