// A replica that becomes five times slower in mid-step: what it had begun stays with it, all else goes to its sibling.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

#include "sim/cluster.h"

namespace isthmus::sim {
namespace {

constexpr Duration kOperation = std::chrono::milliseconds(50);
constexpr Duration kLatency = std::chrono::milliseconds(20);
constexpr double kSlower = 5;
constexpr std::uint32_t kMicrobatches = 32;
constexpr std::uint64_t kShare = kMicrobatches / 2;
constexpr std::uint64_t kBegun = kShare / 4;  // before it becomes slow

Cluster::Options options() {
  Cluster::Options options;
  options.latency = kLatency;
  options.forward = options.input_gradient = options.weight_gradient = kOperation;
  return options;
}

protocol::Plan three_stages_of_two(std::uint32_t credits) {
  protocol::Plan plan;
  plan.run_id = 1;
  plan.microbatches = kMicrobatches;
  plan.steps = 8;
  plan.tokens_per_microbatch = 1;
  plan.token_bytes = plan.forward_bytes = plan.backward_bytes = 8;
  plan.part_width = plan.total_width = 8;
  for (std::uint32_t s = 0; s < 3; ++s) plan.stages.push_back({s, s + 1, 2, credits, 5, 40});
  return plan;
}

std::uint64_t operations(const Cluster& cluster, PeerId peer) {
  return cluster.begun(peer, protocol::Operation::kForward) + cluster.begun(peer, protocol::Operation::kInputGradient) +
         cluster.begun(peer, protocol::Operation::kWeightGradient);
}
std::uint64_t unasked(const Cluster& cluster) {
  return cluster.sent<protocol::Receipt>() - cluster.sent<protocol::Probe>();
}

struct Step {
  double seconds = 0;
  std::uint64_t begun = 0;     // microbatches that the straggler had begun once its second slow operation ran
  std::uint64_t in_all = 0;    // … and by the end of the step
  std::uint64_t messages = 0;  // that were sent because of it
};

// Step 5 of a cluster, in which the replica becomes slower once it has begun a quarter of its share.
Step step_with(Cluster& cluster, PeerId straggler, double factor) {
  Step step;
  EXPECT_TRUE(cluster.run_until([&] { return cluster.commits() == 4; }, seconds(300)));
  const Time began = cluster.now();
  const std::uint64_t before = cluster.begun(straggler, protocol::Operation::kForward);
  const std::uint64_t messages = unasked(cluster) + cluster.sent<protocol::Cancel>() +
                                 cluster.sent<protocol::Cancelled>() + cluster.sent<protocol::TooLate>();
  EXPECT_TRUE(cluster.run_until(
      [&] { return cluster.begun(straggler, protocol::Operation::kForward) == before + kBegun; }, seconds(60)));
  cluster.set_slow(straggler, factor);
  const std::uint64_t then = operations(cluster, straggler);
  EXPECT_TRUE(cluster.run_until([&] { return operations(cluster, straggler) == then + 2; }, seconds(60)));
  step.begun = cluster.begun(straggler, protocol::Operation::kForward) - before;
  EXPECT_TRUE(cluster.run_until([&] { return cluster.commits() == 5; }, seconds(300)));
  step.seconds = to_seconds(cluster.now() - began);
  step.in_all = cluster.begun(straggler, protocol::Operation::kForward) - before;
  step.messages = unasked(cluster) + cluster.sent<protocol::Cancel>() + cluster.sent<protocol::Cancelled>() +
                  cluster.sent<protocol::TooLate>() - messages;
  EXPECT_TRUE(cluster.violations().empty());
  return step;
}

struct Case {
  const char* name;
  PeerId straggler;
  std::uint32_t credits;
};

class Straggler : public ::testing::TestWithParam<Case> {};

TEST_P(Straggler, DelaysTheStepByWhatItHadBegun) {
  const auto& [name, straggler, credits] = GetParam();
  Cluster calm(three_stages_of_two(credits), options()), cluster(three_stages_of_two(credits), options());
  const Step even = step_with(calm, straggler, 1), slow = step_with(cluster, straggler, kSlower);
  EXPECT_EQ(even.messages, 0u);

  // Found out during its second slow operation: of what it had not begun then it keeps what it does while its sibling
  // does the rest, a microbatch for five of the sibling's.
  EXPECT_LE(slow.begun, kBegun + 2);
  EXPECT_LE(slow.in_all, slow.begun + (kShare - slow.begun) / static_cast<std::uint64_t>(kSlower + 1));

  // The longer of what it takes for what it had begun and of what its sibling takes for the rest.
  const double own = static_cast<double>(slow.begun) * 3 * to_seconds(kOperation) * (kSlower - 1);
  const double siblings = static_cast<double>(kShare - slow.begun) * 3 * to_seconds(kOperation);
  // Until it is found out, what it holds up of others' work: two slow operations; then the notice, the request, the
  // answer, and the microbatch to its new place, of a head by way of the coordinator.
  const double found = 2 * kSlower * to_seconds(kOperation), moved = 4 * to_seconds(kLatency);
  const double delay = slow.seconds - even.seconds;
  RecordProperty("delay_seconds", std::to_string(delay));
  std::cout << fmt::format(
      "{}: {:.2f} s instead of {:.2f} s, at most {:.2f} s more; {} begun, {} in all, {} messages\n", name, slow.seconds,
      even.seconds, std::max(own, siblings) + found + moved, slow.begun, slow.in_all, slow.messages);
  EXPECT_LE(delay, std::max(own, siblings) + found + moved);
  // A notice to each of two predecessors; a request and an answer for each microbatch.
  EXPECT_LE(slow.messages, 2 + 2 * kShare);
}

INSTANTIATE_TEST_SUITE_P(
    Of, Straggler,
    ::testing::Values(Case{"HeadDeep", PeerId(1), kMicrobatches}, Case{"HeadOfFourCredits", PeerId(1), 4},
                      Case{"MiddleDeep", PeerId(3), kMicrobatches}, Case{"MiddleOfFourCredits", PeerId(3), 4},
                      Case{"TailDeep", PeerId(5), kMicrobatches}, Case{"TailOfFourCredits", PeerId(5), 4}),
    [](const auto& test) { return test.param.name; });

TEST(StragglerRecovered, IsUsedAgainInTheNextStep) {
  for (const PeerId straggler : {PeerId(1), PeerId(3), PeerId(5)}) {
    Cluster cluster(three_stages_of_two(kMicrobatches), options());
    (void)step_with(cluster, straggler, kSlower);
    cluster.set_slow(straggler, 1);
    const auto share_of_the_next = [&] {
      const std::uint64_t before = cluster.computed(straggler), commits = cluster.commits();
      EXPECT_TRUE(cluster.run_until([&] { return cluster.commits() == commits + 1; }, seconds(300)));
      return cluster.computed(straggler) - before;
    };
    EXPECT_GT(share_of_the_next(), 2u) << straggler.value;
    EXPECT_GE(share_of_the_next(), kShare - 3) << straggler.value;
    EXPECT_TRUE(cluster.violations().empty());
  }
}

TEST(StragglerOfNoise, NothingIsTakenBackForSomeOperationsThatTakeTwiceAsLong) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed)
    for (const std::uint32_t credits : {kMicrobatches, 4u}) {
      auto noisy = options();
      noisy.seed = seed;
      noisy.noise = 0.2;
      noisy.hiccups = 0.05;
      Cluster cluster(three_stages_of_two(credits), noisy);
      EXPECT_TRUE(cluster.run(seconds(600)));
      EXPECT_EQ(cluster.sent<protocol::Cancel>(), 0u);
      EXPECT_EQ(unasked(cluster), 0u);
      EXPECT_FALSE(cluster.events().contains("dealt"));
      EXPECT_TRUE(cluster.violations().empty());
    }
}

}  // namespace
}  // namespace isthmus::sim
