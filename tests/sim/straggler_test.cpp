#include <gtest/gtest.h>

#include "sim/cluster.h"

namespace isthmus::sim {
namespace {

constexpr Duration kOperation = std::chrono::milliseconds(50);
constexpr PeerId kStraggler{3};  // of the middle stage

Plan three_stages_of_two() {
  Plan plan;
  plan.run_id = 1;
  plan.microbatches = 32;
  plan.steps = 8;
  plan.tokens_per_microbatch = 1;
  plan.forward_bytes = plan.backward_bytes = 8;
  plan.part_width = plan.total_width = 8;
  for (std::uint32_t s = 0; s < 3; ++s) plan.stages.push_back({s, s + 1, 2, 32, 5, 40});
  return plan;
}

struct StepTime {
  double seconds = 0;
  std::uint64_t by_straggler = 0;  // microbatches it took part with after it had become slow
};

// Seconds of step 5, in which the straggler becomes `factor` times slower once it has done a quarter of its share.
StepTime step_with(double factor) {
  Cluster::Options options;
  options.forward = options.input_gradient = options.weight_gradient = kOperation;
  Cluster cluster(three_stages_of_two(), options);
  EXPECT_TRUE(cluster.run_until([&] { return cluster.commits() == 4; }, seconds(300)));
  const Time began = cluster.now();
  const std::uint64_t before = cluster.computed(kStraggler);
  EXPECT_TRUE(cluster.run_until([&] { return cluster.computed(kStraggler) == before + 4; }, seconds(60)));
  cluster.set_slow(kStraggler, factor);
  const std::uint64_t then = cluster.computed(kStraggler);
  EXPECT_TRUE(cluster.run_until([&] { return cluster.commits() == 5; }, seconds(300)));
  EXPECT_TRUE(cluster.violations().empty());
  return {to_seconds(cluster.now() - began), cluster.computed(kStraggler) - then};
}

// What it has in hand when it becomes slow is the delay, and no timer adds to it. With deep credits that is all of its share.
TEST(Straggler, DelaysTheStepByWhatItHasInHandOnly) {
  const StepTime even = step_with(1), slow = step_with(5);
  ASSERT_GT(slow.by_straggler, 0u);
  EXPECT_GT(slow.seconds, even.seconds);
  EXPECT_LE(slow.seconds - even.seconds, static_cast<double>(slow.by_straggler) * 3 * to_seconds(kOperation) * (5 - 1));
}

}  // namespace
}  // namespace isthmus::sim
