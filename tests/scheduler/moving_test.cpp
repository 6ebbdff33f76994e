// Replicas that move from one stage to another, as the coordinator decides and carries it out.

#include <gtest/gtest.h>

#include <algorithm>

#include "scheduler/coordinator.h"

namespace isthmus {
namespace {

// Three replicas of the first stage, one of the second.
class Moving : public ::testing::Test {
 protected:
  Moving() : plan_(make()), coordinator_(plan_, seats(), options()) {
    hear(coordinator_.begin(0, now_));
    for (std::uint32_t peer = 1; peer <= 4; ++peer) say(peer, 0);
  }

  static Plan make() {
    Plan plan;
    plan.stages = {{0, 1, 3, 1, 4, 8}, {1, 2, 1, 1, 4, 8}};
    plan.steps = 1000;
    plan.microbatches = 4;
    plan.tokens_per_microbatch = 10;
    return plan;
  }
  static std::vector<Seat> seats() {
    std::vector<Seat> seats;
    for (std::uint32_t peer = 1; peer <= 3; ++peer) seats.push_back({PeerId(peer), StageId(0), ReplicaId(peer - 1), {}});
    seats.push_back({PeerId(4), StageId(1), ReplicaId(0), {}});
    return seats;
  }
  static Coordinator::Options options() {
    Coordinator::Options options;
    options.rebalance.emplace();
    return options;
  }

  void hear(std::vector<CoordinatorEffect> effects) {
    for (auto& effect : effects) {
      if (auto* append = std::get_if<AppendRecord>(&effect)) log_.push_back(append->record);
      if (auto* send = std::get_if<SendView>(&effect)) views_[send->peer] = send->view;
      if (std::holds_alternative<StepCommitted>(effect)) ++commits_;
      if (auto* event = std::get_if<Happened>(&effect)) events_.push_back(event->event);
    }
  }
  Report report(std::uint32_t peer) const {
    Report r;
    r.session = SessionId(session_[peer]);
    r.stage = place_[peer].stage;
    r.replica = place_[peer].replica;
    r.version = coordinator_.decisions().step.value - 1;
    r.step = coordinator_.decisions().step;
    r.attempt = coordinator_.decisions().attempt;
    r.done = DoneSet(plan_.count(r.step));
    r.stats.service_us = 100'000;
    return r;
  }
  void say(std::uint32_t peer, std::uint32_t done) {
    Report r = report(peer);
    for (std::uint32_t m = 0; m < done; ++m) r.done.insert(MicrobatchId(m));
    r.prepared_epoch = coordinator_.decisions().epoch;
    hear(coordinator_.received(PeerId(peer), r, now_));
  }
  // Whoever is a member has prepared the step; one replica of each stage has done all of it.
  void step() {
    const auto live = coordinator_.decisions().live;
    std::optional<StageId> done;
    for (const auto& member : live) {
      say(member.peer.value, done == member.stage ? 0 : plan_.microbatches);
      done = member.stage;
    }
  }
  std::size_t count(const std::string& event) const { return static_cast<std::size_t>(std::ranges::count(events_, event)); }

  const Plan plan_;
  Coordinator coordinator_;
  Time now_ = seconds(100);
  std::vector<LogRecord> log_;
  std::map<PeerId, View> views_;
  std::size_t commits_ = 0;
  std::vector<std::string> events_;
  std::uint64_t session_[5] = {0, 100, 200, 300, 400};
  Place place_[5] = {{}, {StageId(0), ReplicaId(0)}, {StageId(0), ReplicaId(1)}, {StageId(0), ReplicaId(2)}, {StageId(1), ReplicaId(0)}};
};

TEST_F(Moving, WaitsForTheEndOfTheStep) {
  hear(coordinator_.move(PeerId(2), StageId(1), "asked to", now_));
  EXPECT_EQ(count("moved"), 0u);
  step();
  ASSERT_EQ(commits_, 1u);
  ASSERT_TRUE(std::holds_alternative<MoveRecord>(log_.back()));
  EXPECT_EQ(std::get<MoveRecord>(log_.back()), (MoveRecord{PeerId(2), {StageId(1), ReplicaId(1)}, "asked to"}));
  EXPECT_EQ(views_.at(PeerId(2)).moved, (Place{StageId(1), ReplicaId(1)}));
  EXPECT_EQ(views_.at(PeerId(1)).moved, std::nullopt);
  EXPECT_EQ(coordinator_.decisions().live.size(), 3u);
  // Nothing of the new step is dealt to it.
  for (const auto owner : views_.at(PeerId(1)).head_owner) EXPECT_NE(owner, SessionId(200));
}

TEST_F(Moving, TellsWhoDoesNotKnowItAndAdmitsWhoHasArrived) {
  hear(coordinator_.move(PeerId(2), StageId(1), "asked to", now_));
  step();
  views_.clear();
  session_[2] = 201;  // its supervisor started it again where it was first
  say(2, 0);
  EXPECT_EQ(views_.at(PeerId(2)).moved, (Place{StageId(1), ReplicaId(1)}));
  EXPECT_EQ(count("refused"), 0u);
  EXPECT_EQ(coordinator_.decisions().live_of(PeerId(2)), nullptr);
  place_[2] = {StageId(1), ReplicaId(1)};
  session_[2] = 202;
  say(2, 0);
  ASSERT_NE(coordinator_.decisions().live_of(PeerId(2)), nullptr);
  EXPECT_EQ(coordinator_.decisions().live_of(PeerId(2))->stage, StageId(1));
  step();
  EXPECT_EQ(commits_, 2u);
}

TEST_F(Moving, NeverTakesTheLastReplicaNorOneWhoseSiblingsAreSilent) {
  hear(coordinator_.move(PeerId(4), StageId(0), "asked to", now_));
  step();
  EXPECT_EQ(count("moved"), 0u);
  now_ += seconds(1);  // all are silent
  hear(coordinator_.tick(now_));
  hear(coordinator_.move(PeerId(1), StageId(1), "asked to", now_));
  const auto live = coordinator_.decisions().live;
  for (const std::uint32_t peer : {1u, 4u}) {
    Report r = report(peer);
    for (std::uint32_t m = 0; m < plan_.microbatches; ++m) r.done.insert(MicrobatchId(m));
    r.prepared_epoch = coordinator_.decisions().epoch;
    hear(coordinator_.received(PeerId(peer), r, now_));
  }
  EXPECT_EQ(count("moved"), 0u);
}

TEST_F(Moving, RefillsAStageAtOnceWhoseLastProcessIsGone) {
  step();
  hear(coordinator_.process_gone(PeerId(4), "was killed", now_));
  EXPECT_EQ(count("stopping"), 0u);
  hear(coordinator_.tick(now_));
  ASSERT_EQ(count("moved"), 1u);
  EXPECT_EQ(coordinator_.decisions().moved.size(), 1u);
  EXPECT_EQ(coordinator_.decisions().moved.begin()->second.stage, StageId(1));
}

TEST_F(Moving, LeavesAStageToAProcessThatIsBeingStartedAgain) {
  step();
  hear(coordinator_.process_ended(PeerId(4), now_));
  for (int i = 0; i < 10; ++i) {
    now_ += seconds(1);
    hear(coordinator_.tick(now_));
    for (const std::uint32_t peer : {1u, 2u, 3u}) say(peer, 0);
  }
  EXPECT_EQ(count("moved"), 0u);
}

TEST_F(Moving, StopsTheRunWhenNobodyCanBeSpared) {
  step();
  for (const std::uint32_t peer : {1u, 2u}) hear(coordinator_.process_gone(PeerId(peer), "was killed", now_));
  EXPECT_EQ(count("stopping"), 0u);
  hear(coordinator_.process_gone(PeerId(4), "was killed", now_));
  EXPECT_EQ(count("stopping"), 1u);
}

TEST_F(Moving, GoesToTheStageThatHoldsUpTheStep) {
  for (int i = 0; i < 60 && count("moved") == 0; ++i) {
    now_ += seconds(.5);
    step();
    hear(coordinator_.tick(now_));
  }
  ASSERT_EQ(count("moved"), 1u);
  EXPECT_EQ(coordinator_.decisions().moved.begin()->second, (Place{StageId(1), ReplicaId(1)}));
  // Two and two: nothing is left to gain.
  const PeerId mover = coordinator_.decisions().moved.begin()->first;
  place_[mover.value] = {StageId(1), ReplicaId(1)};
  session_[mover.value] += 1;
  say(mover.value, 0);
  for (int i = 0; i < 2000; ++i) {
    now_ += seconds(.5);
    step();
    hear(coordinator_.tick(now_));
  }
  EXPECT_EQ(count("moved"), 1u);
}

TEST_F(Moving, IsKnownToACoordinatorThatStartsAgain) {
  hear(coordinator_.move(PeerId(2), StageId(1), "asked to", now_));
  step();
  Coordinator again(plan_, seats(), options());
  again.replay(log_);
  place_[2] = {StageId(1), ReplicaId(1)};
  session_[2] = 201;
  hear(again.received(PeerId(2), report(2), now_));
  ASSERT_NE(again.decisions().live_of(PeerId(2)), nullptr);
  // Whoever begins anew begins as the roster says.
  hear(again.begin(0, now_));
  EXPECT_TRUE(again.decisions().moved.empty());
  EXPECT_EQ(views_.at(PeerId(2)).moved, std::nullopt);
}

}  // namespace
}  // namespace isthmus
