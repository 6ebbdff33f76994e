// A worker that was asked to leave.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "router/answered_tokens.h"
#include "router/worker_steps.h"
#include "sim/cluster.h"

namespace isthmus::router {
namespace {

using protocol::Leaving;

// The second of two heads, with two of the step's four microbatches.
class LeavingHead : public ::testing::Test {
 protected:
  LeavingHead() : worker_(plan(), {PeerId(2), StageId(0), ReplicaId(1), {}, seconds(2)}, {}, 5) {
    hear(worker_.view_received(view(), now_));
  }
  static protocol::Plan plan() {
    protocol::Plan plan;
    plan.stages = {{0, 1, 2, 4, 8}, {1, 2, 1, 4, 8}};
    plan.steps = 3;
    plan.microbatches = 4;
    plan.tokens_per_microbatch = 1;
    plan.token_bytes = 8;
    return plan;
  }
  protocol::View view() const {
    protocol::View view;
    view.epoch = EpochId(3);
    view.step = StepId(1);
    view.live = {{PeerId(1), SessionId(10), StageId(0), ReplicaId(0), {}, {}},
                 {PeerId(2), worker_.session(), StageId(0), ReplicaId(1), {}, {}},
                 {PeerId(3), SessionId(30), StageId(1), ReplicaId(0), {}, {}}};
    view.head_owner = {SessionId(10), worker_.session(), SessionId(10), worker_.session()};
    view.head_again.assign(4, false);
    view.last_session = worker_.session();
    return view;
  }
  void hear(const std::vector<protocol::WorkerEffect>& effects) {
    for (const auto& effect : effects) {
      if (const auto* send = std::get_if<protocol::SendMessage>(&effect))
        if (const auto* report = std::get_if<protocol::Report>(&send->message)) report_ = *report;
      if (const auto* run = std::get_if<protocol::RunOperation>(&effect)) running_ = *run;
      if (const auto* save = std::get_if<protocol::RunSave>(&effect)) saving_ = save->version;
      left_ = left_ || std::holds_alternative<protocol::Leave>(effect);
    }
    for (const auto& ids : answered_tokens(plan(), effects)) hear(worker_.tokens_received(ids, now_));
  }
  protocol::View released() const {
    protocol::View released = view();
    released.live.erase(released.live.begin() + 1);
    released.epoch = EpochId(4);
    released.released = true;
    return released;
  }

  Time now_ = seconds(1);
  WorkerSteps worker_;
  protocol::Report report_;
  std::optional<protocol::RunOperation> running_;
  std::optional<std::uint64_t> saving_;
  bool left_ = false;
};

TEST_F(LeavingHead, HandsBackWhatItHasNotBegunAndFinishesTheRest) {
  ASSERT_EQ(running_->task.microbatch, MicrobatchId(1));
  hear(worker_.say_good_bye(now_));
  EXPECT_EQ(report_.leaving, Leaving::kFinishing);
  EXPECT_EQ(report_.returned.size(), 1u);
  EXPECT_TRUE(report_.returned.contains(MicrobatchId(3)));
  EXPECT_EQ(worker_.stays_for(), "finishes step 1, then leaves");
  EXPECT_FALSE(left_);
  // A view that is about somebody who left is none for it before it asks to leave, and lets it go afterwards.
  hear(worker_.view_received(released(), now_));
  EXPECT_TRUE(left_);
}

TEST_F(LeavingHead, GoesByItselfIfNobodyLetsItGo) {
  hear(worker_.say_good_bye(now_));
  for (; !left_ && now_ < seconds(100); now_ += seconds(.1)) hear(worker_.tick(now_));
  EXPECT_TRUE(left_);
  EXPECT_GE(now_, seconds(31));
  EXPECT_LE(now_, seconds(32));
  EXPECT_EQ(report_.leaving, Leaving::kAtOnce);
}

TEST_F(LeavingHead, SaysThatItGoesAtOnce) {
  hear(worker_.leave_at_once(now_));
  EXPECT_TRUE(left_);
  EXPECT_EQ(report_.leaving, Leaving::kAtOnce);
}

TEST_F(LeavingHead, HearsOfNoReleaseThatItDidNotAskFor) {
  hear(worker_.view_received(released(), now_));
  EXPECT_FALSE(left_);
  EXPECT_EQ(worker_.view().epoch, EpochId(3));
}

protocol::Plan four_workers(std::uint32_t tails) {
  protocol::Plan plan;
  plan.run_id = 7;
  plan.stages = {{0, 1, 2, 5, 8}, {1, 2, tails, 5, 8}};
  for (auto& stage : plan.stages) stage.state_bytes = 40;
  plan.steps = 6;
  plan.microbatches = 8;
  plan.tokens_per_microbatch = 1;
  plan.forward_bytes = plan.backward_bytes = plan.part_width = plan.total_width = plan.token_bytes = 8;
  return plan;
}

sim::Fault leave(PeerId peer, Time at) {
  sim::Fault leave{};
  leave.kind = sim::FaultKind::kLeave;
  leave.start = at;
  leave.peer = peer;
  return leave;
}

// Two of each stage; one is asked in mid-step. It goes with that step's commit, and gave it.
TEST(Leaving, CountsWhatItGaveAndCostsTheStepNothing) {
  sim::Cluster cluster(four_workers(2), {});
  const PeerId leaver(4);
  ASSERT_TRUE(cluster.run_until([&] { return cluster.commits() == 2 && cluster.computed(leaver) > 8; }, seconds(60)));
  cluster.add(leave(leaver, cluster.now()));
  ASSERT_TRUE(cluster.run_until([&] { return !cluster.is_up(leaver); }, seconds(60)));
  EXPECT_EQ(cluster.commits(), 3u);
  EXPECT_EQ(cluster.worker(leaver).given().steps, 3u);
  EXPECT_EQ(cluster.worker(leaver).given().microbatches, cluster.computed(leaver));
  EXPECT_TRUE(cluster.run(seconds(60)));
  EXPECT_TRUE(cluster.violations().empty());
  EXPECT_EQ(cluster.replayed(), 0u);
  EXPECT_EQ(cluster.events().at("left"), 1u);
  EXPECT_FALSE(cluster.events().contains("suspected"));
}

// Its weights are on its disk when it comes back, without a checkpoint of the run's: nothing is fetched or rebuilt.
TEST(Leaving, TheOnlyOneOfItsStageTakesItsWeightsAlong) {
  sim::Cluster cluster(four_workers(1), {});
  const PeerId leaver(3);
  ASSERT_TRUE(cluster.run_until([&] { return cluster.commits() == 2; }, seconds(60)));
  cluster.add(leave(leaver, cluster.now()));
  EXPECT_TRUE(cluster.run(seconds(60)));
  EXPECT_TRUE(cluster.violations().empty());
  EXPECT_EQ(cluster.events().at("left"), 1u);
  for (const char* event : {"suspected", "joining", "rolled back"})
    EXPECT_FALSE(cluster.events().contains(event)) << event;
}

}  // namespace
}  // namespace isthmus::router
