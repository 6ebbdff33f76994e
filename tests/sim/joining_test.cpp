// Joiners whose stage's weights are many pieces, so that there is something to break while they are on their way.
#include <gtest/gtest.h>

#include <string>

#include "sim/cluster.h"

namespace isthmus::sim {
namespace {

constexpr std::uint64_t kPieces = 8;

// One stage. Its weights take 0.8 s of a donor's share of the uplink, the sum of a step 0.2 s of all of it.
protocol::Plan one_stage(std::uint32_t replicas) {
  constexpr std::uint64_t kParameters = kPieces * protocol::kPieceBytes / 8;
  protocol::Plan plan;
  plan.run_id = 1;
  plan.microbatches = 6;
  plan.steps = 60;
  plan.tokens_per_microbatch = 1;
  plan.token_bytes = plan.forward_bytes = plan.backward_bytes = 8;
  plan.part_width = plan.total_width = 8;
  plan.stages.push_back({0, 1, replicas, 6, kParameters, 8 * kParameters});
  return plan;
}

class Joining : public ::testing::Test {
 protected:
  static Cluster::Options options() {
    Cluster::Options options;
    options.forward = options.input_gradient = options.weight_gradient = std::chrono::milliseconds(60);
    return options;
  }
  bool fetches(PeerId peer) const {
    const auto text = cluster_.is_up(peer) ? cluster_.worker(peer).waiting_for() : "";
    return text.find("snapshot") != std::string::npos && text.find(" 0 of") == std::string::npos;
  }
  bool is_member(PeerId peer) const {
    return cluster_.is_up(peer) && cluster_.coordinator().decisions().find(cluster_.worker(peer).session()) != nullptr;
  }
  void kill(PeerId peer) { cluster_.add({FaultKind::kCrash, cluster_.now(), {}, peer, {}, {}, 0}); }
  void expect_clean_end() {
    EXPECT_TRUE(cluster_.run(seconds(600)));
    EXPECT_TRUE(cluster_.finished());
    for (const auto& violation : cluster_.violations()) ADD_FAILURE() << violation;
    EXPECT_FALSE(cluster_.events().contains("rolled back"));
  }

  Cluster cluster_{one_stage(3), options()};
};

TEST_F(Joining, OutlivesADonorThatDiesInMidTransfer) {
  ASSERT_TRUE(cluster_.run_until([&] { return cluster_.commits() == 5; }, seconds(60)));
  kill(PeerId(3));
  ASSERT_TRUE(cluster_.run_until([&] { return fetches(PeerId(3)); }, seconds(10)));
  kill(PeerId(1));
  ASSERT_TRUE(cluster_.run_until([&] { return !is_member(PeerId(1)); }, seconds(1)));
  EXPECT_TRUE(fetches(PeerId(3))) << cluster_.worker(PeerId(3)).waiting_for();
  EXPECT_TRUE(cluster_.run_until([&] { return is_member(PeerId(3)) && is_member(PeerId(1)); }, seconds(30)));
  expect_clean_end();
}

TEST_F(Joining, LetsTwoInThatComeBackTogether) {
  ASSERT_TRUE(cluster_.run_until([&] { return cluster_.commits() == 5; }, seconds(60)));
  kill(PeerId(1));
  kill(PeerId(3));
  ASSERT_TRUE(cluster_.run_until([&] { return fetches(PeerId(1)) && fetches(PeerId(3)); }, seconds(10)));
  EXPECT_TRUE(cluster_.run_until([&] { return is_member(PeerId(1)) && is_member(PeerId(3)); }, seconds(30)));
  expect_clean_end();
}

}  // namespace
}  // namespace isthmus::sim
