// What heads read comes from the coordinator, ahead of their steps.
#include <gtest/gtest.h>

#include <utility>

#include "sim/cluster.h"

namespace isthmus::sim {
namespace {

protocol::Plan plan(std::uint32_t heads) {
  protocol::Plan plan;
  plan.run_id = 1;
  plan.microbatches = 12;
  plan.steps = 12;
  plan.evaluation_microbatches = 4;
  plan.evaluate_every = 3;
  plan.tokens_per_microbatch = 1;
  plan.token_bytes = plan.forward_bytes = plan.backward_bytes = 8;
  plan.part_width = plan.total_width = 8;
  for (std::uint32_t s = 0; s < 3; ++s) plan.stages.push_back({s, s + 1, s == 0 ? heads : 1, 6, 5, 40});
  return plan;
}

// How many heads, and how far away all are from each other, milliseconds.
class Tokens : public ::testing::TestWithParam<std::pair<std::uint32_t, int>> {};

// With shares that change a little from step to step: what a head gets for the first time is on its way while it does
// the rest.
TEST_P(Tokens, AreThereBeforeTheStepThatNeedsThem) {
  const std::uint32_t heads = GetParam().first;
  Cluster::Options options;
  options.latency = std::chrono::milliseconds(GetParam().second);
  options.noise = 0.3;
  Cluster cluster(plan(heads), options);
  std::map<PeerId, std::uint64_t> waited_in;
  ASSERT_TRUE(cluster.run_until(
      [&] {
        for (PeerId head(1); head.value <= heads && !cluster.ended(); head = PeerId(head.value + 1))
          if (cluster.worker(head).waiting_for() == "tokens from the coordinator")
            waited_in[head] = std::max(waited_in[head], cluster.worker(head).view().step.value);
        return cluster.ended();
      },
      seconds(120)));
  EXPECT_TRUE(cluster.finished());
  EXPECT_TRUE(cluster.violations().empty());
  // The first one nobody could ask for.
  for (const auto& [head, step] : waited_in) EXPECT_LE(step, 1u) << head.value;
  // Each sample once, held-out ones once for each head. The first questions are asked again over the connection that
  // comes up then; what the heads were wrong about comes to it.
  const auto count = cluster.sent<protocol::TokenIds>();
  EXPECT_GE(count, 12u * 12 + heads * 4);
  EXPECT_LE(count, 12u * 12 + heads * 4 + heads * 3 * 12);
}

INSTANTIATE_TEST_SUITE_P(Heads, Tokens, ::testing::Values(std::pair(1u, 300), std::pair(2u, 10), std::pair(3u, 10)));

// It dies while the first question is on its way.
TEST(Tokens, AreAskedForAgainAfterTheCoordinatorDied) {
  Cluster cluster(plan(1), {});
  ASSERT_TRUE(cluster.run_until([&] { return cluster.sent<protocol::TokenRequest>() > 0; }, seconds(60)));
  Fault fault;
  fault.kind = FaultKind::kCoordinatorCrash;
  fault.start = cluster.now();
  fault.length = std::chrono::milliseconds(1);
  cluster.add(fault);
  EXPECT_TRUE(cluster.run(seconds(120)));
  EXPECT_TRUE(cluster.finished());
  EXPECT_TRUE(cluster.violations().empty());
}

}  // namespace
}  // namespace isthmus::sim
