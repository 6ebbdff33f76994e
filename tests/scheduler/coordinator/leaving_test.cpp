// Workers that say good-bye.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "scheduler/coordinator/coordinator.h"
#include "seated.h"

namespace isthmus::coordinator {
namespace {

using protocol::Leaving;

// Two heads, 1 and 2, and a tail, 3; 4 waits for a seat. Two microbatches a step.
class LeavingTest : public ::testing::Test {
 protected:
  LeavingTest() {
    hear(coordinator_.begin(0, now_));
    for (const std::uint32_t peer : {1u, 2u, 3u}) say(peer);
  }
  static protocol::Plan plan() {
    protocol::Plan plan;
    plan.stages = {{0, 1, 2, 4}, {1, 2, 1, 4}};
    plan.steps = 9;
    plan.microbatches = 2;
    plan.tokens_per_microbatch = 10;
    return plan;
  }
  static std::vector<LogRecord> log_before() {
    auto log = seating_log({{PeerId(1), StageId(0), ReplicaId(0), {}},
                            {PeerId(2), StageId(0), ReplicaId(1), {}},
                            {PeerId(3), StageId(1), ReplicaId(0), {}}});
    log.push_back(EnrolRecord{PeerId(4), {4}, {4}, "waits", {}});
    return log;
  }
  static Coordinator made() {
    Coordinator coordinator(plan(), {});
    coordinator.replay(log_before());
    return coordinator;
  }
  void hear(std::vector<CoordinatorEffect> effects) {
    for (auto& effect : effects) {
      if (auto* append = std::get_if<AppendRecord>(&effect)) log_.push_back(append->record);
      if (auto* send = std::get_if<SendView>(&effect)) views_[send->peer.value] = send->view;
      if (auto* event = std::get_if<Happened>(&effect)) {
        happened_.emplace_back(name_of(event->event));
        if (std::holds_alternative<events::Left>(event->event)) when_ = text_of(event->event);
      }
    }
  }
  protocol::Report report(std::uint32_t peer, Leaving leaving = Leaving::kNo) const {
    protocol::Report r;
    r.session = SessionId(100 * peer);
    r.stage = StageId(peer == 3 ? 1 : 0);
    r.replica = ReplicaId(peer == 2 ? 1 : peer == 4 ? 2 : 0);
    r.version = coordinator_.decisions().step.value - 1;
    r.step = coordinator_.decisions().step;
    r.attempt = coordinator_.decisions().attempt;
    r.epoch = coordinator_.decisions().epoch;
    r.done = DoneSet(2);
    r.leaving = leaving;
    return r;
  }
  void say(const protocol::Report& r, std::uint32_t peer) { hear(coordinator_.received(PeerId(peer), r, now_)); }
  void say(std::uint32_t peer, Leaving leaving = Leaving::kNo) { say(report(peer, leaving), peer); }
  // Everybody who has a part in it reports the step as done, and then as prepared.
  void finish_step(std::map<std::uint32_t, Leaving> leaving = {}) {
    const auto step = coordinator_.decisions().step;
    for (const bool prepared : {false, true})
      for (const auto& member : std::vector(coordinator_.decisions().live)) {
        if (coordinator_.decisions().step != step) return;
        const std::uint32_t peer = member.peer.value;
        protocol::Report r = report(peer, leaving.contains(peer) ? leaving.at(peer) : Leaving::kNo);
        const auto& heads = coordinator_.decisions().head_owner;
        for (std::uint32_t m = 0; m < 2; ++m)
          if (peer == 3 || heads[m] == r.session) r.done.insert(MicrobatchId(m));
        if (prepared) r.prepared_epoch = coordinator_.decisions().epoch;
        say(r, peer);
      }
  }
  std::size_t live() const { return coordinator_.decisions().live.size(); }
  bool is_seated(std::uint32_t peer) const { return coordinator_.place_of(PeerId(peer)).has_value(); }
  void waits_for_seat(std::uint32_t peer) { hear(coordinator_.connected(PeerId(peer), now_)); }

  Coordinator coordinator_ = made();
  Time now_ = seconds(100);
  std::vector<LogRecord> log_ = log_before();
  std::map<std::uint32_t, protocol::View> views_;
  std::vector<std::string> happened_;
  std::string when_;  // somebody left last
};

TEST_F(LeavingTest, AMemberGoesOnceTheStepWithItsPartIsCommitted) {
  ASSERT_EQ(live(), 3u);
  say(1, Leaving::kFinishing);
  EXPECT_EQ(live(), 3u);
  EXPECT_THAT(views_[3].leaving, testing::ElementsAre(SessionId(100)));  // who sends it nothing new
  EXPECT_FALSE(views_[1].released);
  finish_step({{1, Leaving::kFinishing}});
  EXPECT_EQ(coordinator_.decisions().step, StepId(2));
  EXPECT_EQ(live(), 2u);
  EXPECT_FALSE(is_seated(1));
  ASSERT_TRUE(views_[1].released);
  EXPECT_EQ(views_[1].last_commit->step, StepId(1));  // so that it counts as given
  EXPECT_EQ(when_, "stage 0 replica 0, after step 1");
  EXPECT_THAT(coordinator_.decisions().head_owner, testing::Each(SessionId(200)));
  EXPECT_THAT(happened_, testing::Not(testing::Contains("expelled")));
  // Nobody waits for it when its connection goes.
  hear(coordinator_.disconnected(PeerId(1), now_));
  EXPECT_THAT(happened_, testing::Not(testing::Contains("suspected")));
}

TEST_F(LeavingTest, WhoeverWaitsHasItsSeatBeforeItHasGone) {
  waits_for_seat(4);
  EXPECT_FALSE(is_seated(4));
  say(1, Leaving::kFinishing);
  EXPECT_EQ(coordinator_.place_of(PeerId(4)), (protocol::Place{StageId(0), ReplicaId(2)}));
  EXPECT_TRUE(is_seated(1));
}

TEST_F(LeavingTest, NothingBegunIsNothingToWaitFor) {
  say(1, Leaving::kEmptyHanded);
  EXPECT_EQ(live(), 2u);
  EXPECT_TRUE(views_[1].released);
  EXPECT_EQ(when_, "stage 0 replica 0, with nothing begun");
  EXPECT_THAT(coordinator_.decisions().head_owner, testing::Each(SessionId(200)));
}

TEST_F(LeavingTest, TheOnlyOneOfItsStageStaysForWhoeverComesInItsPlace) {
  finish_step();
  say(3, Leaving::kEmptyHanded);
  EXPECT_EQ(live(), 3u);
  waits_for_seat(4);
  ASSERT_EQ(coordinator_.place_of(PeerId(4))->stage, StageId(1));
  finish_step({{3, Leaving::kFinishing}});
  EXPECT_EQ(coordinator_.decisions().step, StepId(3));
  EXPECT_EQ(live(), 3u);  // 4 gets the weights from it
  protocol::Report newcomer = report(4);
  newcomer.stage = StageId(1);
  newcomer.replica = ReplicaId(1);
  say(newcomer, 4);
  ASSERT_EQ(live(), 4u);
  say(3, Leaving::kEmptyHanded);
  EXPECT_EQ(live(), 3u);
  EXPECT_TRUE(views_[3].released);
}

TEST_F(LeavingTest, TheOnlyOneGoesBetweenTwoStepsIfNobodyComes) {
  now_ += seconds(30);
  for (const std::uint32_t peer : {1u, 2u, 3u}) say(peer);
  finish_step({{3, Leaving::kFinishing}});
  EXPECT_TRUE(views_[3].released);
  EXPECT_TRUE(coordinator_.decisions().stage_is_empty(StageId(1)));
}

TEST_F(LeavingTest, WhoeverWaitsNoLongerIsOutAtOnce) {
  say(3, Leaving::kAtOnce);
  EXPECT_TRUE(coordinator_.decisions().stage_is_empty(StageId(1)));
  EXPECT_FALSE(is_seated(3));
}

TEST_F(LeavingTest, IsToldAgainIfItHasNotHeard) {
  const auto last = report(1, Leaving::kFinishing);
  finish_step({{1, Leaving::kFinishing}});
  views_.clear();
  const std::size_t records = log_.size();
  say(last, 1);
  EXPECT_TRUE(views_[1].released);
  // … and by a coordinator that died after it had written the half of it.
  Coordinator again(plan(), {});
  log_.pop_back();
  ASSERT_TRUE(std::holds_alternative<ExpelRecord>(log_.back()) || records == log_.size() + 1);
  again.replay(log_);
  coordinator_ = std::move(again);
  views_.clear();
  say(last, 1);
  EXPECT_TRUE(views_[1].released);
  EXPECT_FALSE(is_seated(1));
}

TEST_F(LeavingTest, HasASeatAgainOnceItEnrolsAnew) {
  finish_step({{1, Leaving::kFinishing}});
  Enrolment asks;
  asks.identity[0] = 1;
  asks.again = true;  // the old life, which looks for its coordinator
  hear(coordinator_.enrol(asks, now_));
  EXPECT_FALSE(is_seated(1));
  asks.again = false;
  hear(coordinator_.enrol(asks, now_));
  EXPECT_TRUE(is_seated(1));
}

TEST_F(LeavingTest, GoodByeAtTheDoorGivesUpASeatOrAPlaceInTheQueue) {
  waits_for_seat(4);
  hear(coordinator_.good_bye({9}, "", now_));  // nobody
  hear(coordinator_.good_bye({4}, "", now_));
  EXPECT_FALSE(is_seated(4));
  say(1, Leaving::kFinishing);
  EXPECT_FALSE(is_seated(4));
  EXPECT_EQ(coordinator_.status(now_).workers.back().standing, Standing::kLeaving);
  hear(coordinator_.good_bye({3}, "", now_));
  EXPECT_FALSE(is_seated(3));
}

TEST_F(LeavingTest, IsNotMovedAndNobodyIsMovedAwayFromIt) {
  say(1, Leaving::kFinishing);
  hear(coordinator_.move(PeerId(1), StageId(1), "asked to", now_));
  hear(coordinator_.move(PeerId(2), StageId(1), "asked to", now_));
  finish_step({{1, Leaving::kFinishing}});
  EXPECT_THAT(happened_, testing::Not(testing::Contains("moved")));
}

// The last steps went without its stage, whose weights it took along: it may come back, and nobody else.
TEST_F(LeavingTest, TheOnlyOneMayComeBackAfterTheLastCommit) {
  now_ += seconds(30);
  for (const std::uint32_t peer : {1u, 2u, 3u}) say(peer);
  log_.push_back(InitRecord{0});
  const EpochId epoch = coordinator_.decisions().epoch;
  log_.push_back(CommitRecord{{StepId(plan().final_step().value), 0, epoch}, {}, {}, {}, ""});
  Coordinator finished(plan(), {});
  finished.replay(log_);
  ASSERT_EQ(finished.phase(), protocol::Phase::kFinished);
  const auto asks = [&](std::uint8_t who) {
    Enrolment enrolment;
    enrolment.identity[0] = who;
    bool let_in = false;
    for (const auto& effect : finished.enrol(enrolment, now_)) let_in = let_in || std::holds_alternative<LetIn>(effect);
    return let_in;
  };
  EXPECT_TRUE(asks(1));
  EXPECT_FALSE(asks(99));
}

TEST_F(LeavingTest, ARunThatEndsTakesItAlong) {
  hear(coordinator_.stop("interrupted", now_));
  say(1, Leaving::kFinishing);
  EXPECT_EQ(live(), 3u);
  EXPECT_FALSE(views_[1].released);
}

}  // namespace
}  // namespace isthmus::coordinator
