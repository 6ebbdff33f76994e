#include <gtest/gtest.h>

#include <algorithm>

#include "scheduler/coordinator/coordinator.h"
#include "seated.h"

namespace isthmus::coordinator {
namespace {

// Four stages of one replica each, peers 1 to 4; the coordinator may go without an inner one.
class Skipping : public ::testing::Test {
 protected:
  explicit Skipping(std::uint32_t stages = 4)
      : plan_(plan_of(stages)), coordinator_(seated(plan_, seats(stages), {})) {}

  static protocol::Plan plan_of(std::uint32_t stages) {
    protocol::Plan plan;
    for (std::uint32_t s = 0; s < stages; ++s) plan.stages.push_back({s, s + 1, 1, 4});
    plan.steps = 50;
    plan.microbatches = 2;
    plan.tokens_per_microbatch = 10;
    plan.skip_after = seconds(5);
    plan.skip_steps = 3;
    return plan;
  }
  static std::vector<Seat> seats(std::uint32_t stages) {
    std::vector<Seat> seats;
    for (std::uint32_t s = 0; s < stages; ++s) seats.push_back({PeerId(s + 1), StageId(s), ReplicaId(0), {}});
    return seats;
  }

  void hear(std::vector<CoordinatorEffect> effects) {
    for (auto& effect : effects) {
      if (auto* append = std::get_if<AppendRecord>(&effect)) log_.push_back(append->record);
      if (auto* send = std::get_if<SendView>(&effect)) views_[send->peer] = send->view;
      if (auto* event = std::get_if<Happened>(&effect)) events_.emplace_back(name_of(event->event));
    }
  }
  protocol::Report report(std::uint32_t stage, std::uint64_t session) const {
    protocol::Report r;
    r.session = SessionId(session);
    r.stage = StageId(stage);
    r.step = coordinator_.decisions().step;
    r.version = r.step.value - 1;
    r.attempt = coordinator_.decisions().attempt;
    r.done = DoneSet(plan_.count(r.step));
    return r;
  }
  void begin() {
    hear(coordinator_.begin(0, now_));
    for (std::uint32_t s = 0; s < plan_.stages.size(); ++s) join(s, 100 * (s + 1));
  }
  void join(std::uint32_t stage, std::uint64_t session) {
    sessions_[stage] = session;
    protocol::Report r = report(stage, session);
    r.step = StepId(0);
    hear(coordinator_.received(PeerId(stage + 1), r, now_));
  }
  // Everybody who is there does what the path of this step asks of its stage.
  void take_step() {
    const protocol::StepPaths paths(plan_, coordinator_.decisions().step, coordinator_.decisions().absent);
    const StepId step = coordinator_.decisions().step;
    for (const auto& [stage, session] : sessions_) {
      if (coordinator_.decisions().step != step) break;
      protocol::Report r = report(stage, session);
      for (std::uint32_t m = 0; m < r.done.count(); ++m)
        if (paths.visits(MicrobatchId(m), StageId(stage))) r.done.insert(MicrobatchId(m));
      r.prepared_epoch = coordinator_.decisions().epoch;
      r.norms = {{fmt::format("layer.{}", stage), 1.0}};
      hear(coordinator_.received(PeerId(stage + 1), r, now_));
    }
  }
  void lose(std::uint32_t stage) {
    sessions_.erase(stage);
    hear(coordinator_.process_ended(PeerId(stage + 1), now_));
  }
  void wait(Duration time) {
    const Time end = now_ + time;
    while (now_ < end) {
      now_ += std::chrono::milliseconds(100);
      for (const auto& [stage, session] : sessions_)
        hear(coordinator_.received(PeerId(stage + 1), report(stage, session), now_));
      hear(coordinator_.tick(now_));
    }
  }
  const std::vector<StageId>& absent() const { return coordinator_.decisions().absent; }
  std::uint64_t step() const { return coordinator_.decisions().step.value; }

  const protocol::Plan plan_;
  Coordinator coordinator_;
  Time now_ = seconds(100);
  std::map<std::uint32_t, std::uint64_t> sessions_;
  std::vector<LogRecord> log_;
  std::map<PeerId, protocol::View> views_;
  std::vector<std::string> events_;
};

TEST_F(Skipping, BeginsTheStepAgainWithoutAStageThatStaysEmpty) {
  begin();
  take_step();
  ASSERT_EQ(step(), 2u);
  lose(2);
  wait(seconds(4));
  EXPECT_TRUE(absent().empty());
  const auto attempt = coordinator_.decisions().attempt;
  wait(seconds(2));
  EXPECT_EQ(absent(), std::vector{StageId(2)});
  EXPECT_EQ(coordinator_.decisions().attempt, attempt + 1);
  EXPECT_EQ(views_.at(PeerId(1)).absent, std::vector{StageId(2)});
  EXPECT_EQ(std::ranges::count(events_, "skipped"), 1);
  take_step();
  EXPECT_EQ(step(), 3u);
  EXPECT_EQ(coordinator_.decisions().last_commit->absent, std::vector{StageId(2)});
  EXPECT_EQ(absent(), std::vector{StageId(2)});
}

TEST_F(Skipping, UsesAStageThatIsBackFromTheNextStepOn) {
  begin();
  take_step();
  lose(1);
  wait(seconds(6));
  join(1, 999);
  EXPECT_EQ(absent(), std::vector{StageId(1)});  // not in the running attempt
  take_step();
  EXPECT_EQ(step(), 3u);
  EXPECT_TRUE(absent().empty());
  take_step();
  EXPECT_EQ(step(), 4u);
}

TEST_F(Skipping, WaitsForTheFirstAndTheLastStage) {
  begin();
  take_step();
  lose(0);
  lose(3);
  wait(seconds(20));
  EXPECT_TRUE(absent().empty());
}

TEST_F(Skipping, WaitsForOneOfTwoNeighbours) {
  begin();
  take_step();
  lose(1);
  wait(seconds(1));
  lose(2);
  wait(seconds(20));
  EXPECT_EQ(absent(), std::vector{StageId(1)});
}

TEST_F(Skipping, WaitsBeforeTheFirstCommit) {
  begin();
  lose(1);
  wait(seconds(20));
  EXPECT_TRUE(absent().empty());
}

TEST_F(Skipping, WaitsOnceTheStageHasBeenMissingForSoManySteps) {
  begin();
  take_step();
  lose(2);
  wait(seconds(6));
  for (int i = 0; i < 3; ++i) take_step();
  EXPECT_EQ(step(), 5u);
  EXPECT_TRUE(absent().empty());
  take_step();
  wait(seconds(20));
  EXPECT_EQ(step(), 5u);
  EXPECT_TRUE(absent().empty());
  EXPECT_EQ(std::ranges::count(events_, "waiting"), 1);
  join(2, 777);
  take_step();
  EXPECT_EQ(step(), 6u);
  // It may be missed again now.
  lose(2);
  wait(seconds(6));
  EXPECT_EQ(absent(), std::vector{StageId(2)});
}

class SkippingTwo : public Skipping {
 protected:
  SkippingTwo() : Skipping(7) {}
};

// The last step that may go without one stage loses a second one: it begins again without both.
TEST_F(SkippingTwo, TheRunningStepGoesOnWithoutAStageThatTheNextOneWaitsFor) {
  begin();
  take_step();
  lose(2);
  wait(seconds(6));
  for (int i = 0; i < 2; ++i) take_step();
  EXPECT_EQ(absent(), std::vector{StageId(2)});
  lose(4);
  wait(seconds(6));
  EXPECT_EQ(absent(), (std::vector{StageId(2), StageId(4)}));
  const std::uint64_t last = step();
  take_step();
  EXPECT_EQ(step(), last + 1);
  EXPECT_EQ(absent(), std::vector{StageId(4)});
}

TEST_F(Skipping, ARestartedCoordinatorGoesOnWithoutIt) {
  begin();
  take_step();
  lose(2);
  wait(seconds(6));
  take_step();
  Coordinator again = seated(plan_, seats(4), {});
  again.replay(log_);
  EXPECT_EQ(again.decisions().absent, absent());
  EXPECT_EQ(again.decisions().steps_without, coordinator_.decisions().steps_without);
  EXPECT_EQ(again.decisions().attempt, coordinator_.decisions().attempt);
  EXPECT_EQ(again.decisions().step, coordinator_.decisions().step);
}

}  // namespace
}  // namespace isthmus::coordinator
