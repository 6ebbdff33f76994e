#include "router/state_donor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace isthmus::router {
namespace {

protocol::Plan plan_of_three() {
  protocol::Plan plan;
  for (std::uint32_t s = 0; s < 3; ++s) plan.stages.push_back({s, s + 1, 1, 2});
  plan.steps = 10;
  plan.microbatches = 2;
  return plan;
}

// Worker 2 of the middle stage. Workers 3 and 4 begin the last stage again.
class Recalls : public ::testing::Test {
 protected:
  Recalls() {
    context_.view.live.push_back({PeerId(2), SessionId(12), StageId(1), ReplicaId(0), {}, {}});
    for (const std::uint32_t peer : {3u, 4u})
      context_.view.joining.push_back({PeerId(peer), SessionId(10 + peer), StageId(2), ReplicaId(peer - 3), {}, {}});
  }
  void ask(std::uint32_t peer, std::uint64_t version) {
    protocol::Fetch fetch;
    fetch.from = SessionId(10 + peer);
    fetch.to = SessionId(12);
    fetch.piece = {protocol::PieceKind::kInput, version};
    donor_.received(fetch, PeerId(peer), 5, {});
  }
  // What the device is given.
  std::vector<protocol::RunRecall> jobs() {
    std::vector<protocol::RunRecall> jobs;
    for (auto& effect : std::exchange(context_.effects, {}))
      if (auto* job = std::get_if<protocol::RunRecall>(&effect)) jobs.push_back(*job);
    return jobs;
  }

  WorkerContext context_{
      plan_of_three(), {PeerId(2), StageId(1), ReplicaId(0), {}, seconds(2), 10e6}, {}, {}, SessionId(12), {}};
  StateDonor donor_{context_};
};

// Whoever hands a job to a device whose queue is full waits, and everything else with it.
TEST_F(Recalls, NeverFillTheDevicesQueue) {
  for (std::uint64_t n = 0; n < 10'000; ++n) ask(3, n);
  ask(4, 7);
  auto at_the_device = jobs();
  EXPECT_EQ(at_the_device.size(), 8u);
  std::size_t of_three = 0, of_four = 0;
  while (!at_the_device.empty()) {
    const protocol::RunRecall job = at_the_device.back();
    at_the_device.pop_back();
    (job.asker == SessionId(13) ? of_three : of_four) += 1;
    donor_.recalled({job.asker, job.piece, true, {}});
    for (auto& next : jobs()) at_the_device.push_back(next);
    EXPECT_LE(at_the_device.size(), 8u);
  }
  EXPECT_EQ(of_three, 8u + 256u) << "the rest is to be asked for again";
  EXPECT_EQ(of_four, 1u);
}

TEST_F(Recalls, AreNotMadeForWhoIsGone) {
  for (std::uint64_t n = 0; n < 20; ++n) ask(3, n);
  ask(3, 19);
  ask(4, 7);
  auto at_the_device = jobs();
  ASSERT_EQ(at_the_device.size(), 8u);
  context_.view.joining.erase(context_.view.joining.begin());
  donor_.recalled({at_the_device[0].asker, at_the_device[0].piece, true, {}});
  at_the_device = jobs();
  ASSERT_EQ(at_the_device.size(), 1u);
  EXPECT_EQ(at_the_device[0].asker, SessionId(14));
}

}  // namespace
}  // namespace isthmus::router
