// Replicas that move from one stage to another, as the coordinator decides and carries it out.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "scheduler/coordinator/coordinator.h"
#include "seated.h"

namespace isthmus::coordinator {
namespace {

// Three replicas of the first stage, one of the second.
class Moving : public ::testing::Test {
 protected:
  explicit Moving(std::uint32_t rich = 3)
      : plan_(make(rich)), coordinator_(seated(plan_, seats(rich), options())), place_{{}} {
    for (const auto& seat : seats(rich)) {
      session_.push_back(100 * seat.peer.value);
      place_.push_back({seat.stage, seat.replica});
    }
    hear(coordinator_.begin(0, now_));
    for (std::uint32_t peer = 1; peer <= rich + 1; ++peer) say(peer, 0);
  }

  static protocol::Plan make(std::uint32_t rich) {
    protocol::Plan plan;
    plan.stages = {{0, 1, rich, 1, 4, 8}, {1, 2, 1, 1, 4, 8}};
    plan.stages[1].memory_bytes = 8'000;
    plan.steps = 100'000;
    plan.microbatches = 4;
    plan.tokens_per_microbatch = 10;
    return plan;
  }
  static std::vector<Seat> seats(std::uint32_t rich = 3) {
    std::vector<Seat> seats;
    for (std::uint32_t peer = 1; peer <= rich; ++peer)
      seats.push_back({PeerId(peer), StageId(0), ReplicaId(peer - 1), {}});
    seats.push_back({PeerId(rich + 1), StageId(1), ReplicaId(0), {}});
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
      if (auto* event = std::get_if<Happened>(&effect)) {
        events_.emplace_back(name_of(event->event));
        reasons_.push_back(text_of(event->event));
      }
    }
  }
  protocol::Report report(std::uint32_t peer) const {
    protocol::Report r;
    r.session = SessionId(session_[peer]);
    r.stage = place_[peer].stage;
    r.replica = place_[peer].replica;
    r.version = coordinator_.decisions().step.value - 1;
    r.step = coordinator_.decisions().step;
    r.attempt = coordinator_.decisions().attempt;
    r.done = DoneSet(plan_.count(r.step));
    r.stats.service_us = 100'000;
    r.device.memory_bytes = memory_;
    return r;
  }
  // It serves where it was moved, with a new session.
  void arrive(PeerId peer) {
    place_[peer.value] = coordinator_.decisions().moved.at(peer);
    session_[peer.value] += 1;
    say(peer.value, 0);
  }
  void say(std::uint32_t peer, std::uint32_t done) {
    protocol::Report r = report(peer);
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
  std::size_t count(const std::string& event) const {
    return static_cast<std::size_t>(std::ranges::count(events_, event));
  }

  const protocol::Plan plan_;
  Coordinator coordinator_;
  Time now_ = seconds(100);
  std::vector<LogRecord> log_;
  std::map<PeerId, protocol::View> views_;
  std::size_t commits_ = 0;
  std::vector<std::string> events_;
  std::vector<std::string> reasons_;  // of events_
  std::uint64_t memory_ = 0;          // of every device
  std::vector<std::uint64_t> session_{0};
  std::vector<protocol::Place> place_;
};

TEST_F(Moving, WaitsForTheEndOfTheStep) {
  hear(coordinator_.move(PeerId(2), StageId(1), "asked to", now_));
  EXPECT_EQ(count("moved"), 0u);
  step();
  ASSERT_EQ(commits_, 1u);
  ASSERT_TRUE(std::holds_alternative<MoveRecord>(log_.back()));
  EXPECT_EQ(std::get<MoveRecord>(log_.back()), (MoveRecord{PeerId(2), {StageId(1), ReplicaId(1)}, "asked to"}));
  EXPECT_EQ(views_.at(PeerId(2)).moved, (protocol::Place{StageId(1), ReplicaId(1)}));
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
  EXPECT_EQ(views_.at(PeerId(2)).moved, (protocol::Place{StageId(1), ReplicaId(1)}));
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
    protocol::Report r = report(peer);
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
  EXPECT_EQ(coordinator_.decisions().moved.begin()->second, (protocol::Place{StageId(1), ReplicaId(1)}));
  // Two and two: nothing is left to gain.
  arrive(coordinator_.decisions().moved.begin()->first);
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
  Coordinator again = seated(plan_, seats(), options());
  again.replay(log_);
  place_[2] = {StageId(1), ReplicaId(1)};
  session_[2] = 201;
  hear(again.received(PeerId(2), report(2), now_));
  ASSERT_NE(again.decisions().live_of(PeerId(2)), nullptr);
  // Whoever begins anew begins in its first place.
  hear(again.begin(0, now_));
  EXPECT_TRUE(again.decisions().moved.empty());
  EXPECT_EQ(views_.at(PeerId(2)).moved, std::nullopt);
}

TEST_F(Moving, StopsTheRunWhenNobodyElseCanHoldTheStage) {
  memory_ = 4'000;
  step();
  hear(coordinator_.process_gone(PeerId(4), "was killed", now_));
  EXPECT_EQ(count("moved"), 0u);
  EXPECT_EQ(count("stopping"), 1u);
}

TEST_F(Moving, LetsWhoeverWasToJoinAStageStayIfItIsEmptyMeanwhile) {
  step();
  hear(coordinator_.move(PeerId(2), StageId(1), "asked to", now_));
  hear(coordinator_.process_ended(PeerId(4), now_));
  now_ += seconds(.5);
  hear(coordinator_.tick(now_));
  session_[4] += 1;
  say(4, 0);
  step();
  EXPECT_EQ(commits_, 2u);
  EXPECT_EQ(count("moved"), 0u);
}

// Steps take 100 s, and a reason has held after the first third of one.
TEST_F(Moving, WaitsForTheEndOfALongStepWithoutDecidingAnew) {
  for (int i = 0; i < 1200 && count("moved") == 0; ++i) {
    now_ += seconds(.5);
    for (std::uint32_t peer = 1; peer <= 4; ++peer) say(peer, 0);
    hear(coordinator_.tick(now_));
    if (i % 200 == 0) step();
  }
  ASSERT_EQ(count("moved"), 1u);
  EXPECT_EQ(commits_, 2u);
  EXPECT_TRUE(coordinator_.decisions().moved.contains(PeerId(1)));  // the first choice
}

class MovingFromMany : public Moving {
 protected:
  MovingFromMany() : Moving(7) {}
  void turn(double s) {
    now_ += seconds(s);
    step();
    hear(coordinator_.tick(now_));
  }
};

// The coordinator is another one that knows the log only.
TEST_F(MovingFromMany, GoesOnAfterARestartInTheMiddleOfIt) {
  for (int i = 0; i < 60 && count("moved") == 0; ++i) turn(.5);
  ASSERT_EQ(count("moved"), 1u);
  const PeerId mover = coordinator_.decisions().moved.begin()->first;
  for (int restart = 0; restart < 3; ++restart) {
    coordinator_ = seated(plan_, seats(7), options());
    coordinator_.replay(log_);
    // Another one would be worth its way, but not as long as one is on it.
    for (int i = 0; i < 300; ++i) {
      hear(coordinator_.connected(mover, now_));
      turn(.1);
    }
    EXPECT_EQ(count("moved"), 1u);
  }
  for (int i = 0; i < 2000; ++i) {
    for (const auto& [peer, place] : std::map(coordinator_.decisions().moved))
      if (!coordinator_.decisions().live_of(peer)) arrive(peer);
    turn(.1);
  }
  // To four and four, and nobody twice.
  EXPECT_EQ(count("moved"), 3u);
  EXPECT_EQ(coordinator_.decisions().moved.size(), 3u);
  EXPECT_EQ(coordinator_.decisions().members(StageId(1)).size(), 4u);
  EXPECT_EQ(count("expelled"), 0u);
}

class Refilling : public Moving {
 protected:
  Refilling() : Moving(7) {}
  // Whatever comes to the second stage is lost with what it has to hold, and not started again.
  std::vector<Time> lose_all_movers(Duration time) {
    std::vector<Time> moves;
    for (const Time end = now_ + time; now_ < end && count("stopping") == 0; now_ += seconds(.5)) {
      for (const auto& member : std::vector(coordinator_.decisions().live)) say(member.peer.value, 0);
      hear(coordinator_.tick(now_));
      for (const auto& [peer, place] : std::map(coordinator_.decisions().moved)) {
        if (!lost_.insert(peer).second) continue;
        moves.push_back(now_);
        arrive(peer);
        hear(coordinator_.process_gone(peer, "was killed", now_));
      }
    }
    return moves;
  }
  std::set<PeerId> lost_;
};

TEST_F(Refilling, DoesNotSendOneAfterTheOtherToBeLost) {
  step();
  hear(coordinator_.process_gone(PeerId(8), "was killed", now_));
  const auto moves = lose_all_movers(seconds(600));
  ASSERT_EQ(moves.size(), Rebalance::Options{}.refills);
  for (std::size_t i = 1; i < moves.size(); ++i) EXPECT_GE(moves[i] - moves[i - 1], Rebalance::Options{}.refill_pause);
  EXPECT_EQ(count("warning"), 1u);
  ASSERT_EQ(count("stopping"), 1u);
  EXPECT_EQ(reasons_[static_cast<std::size_t>(std::ranges::find(events_, "warning") - events_.begin())],
            "no more replicas move to stage 1: 3 in a row were lost there; was killed; was killed; was killed");
  EXPECT_EQ(coordinator_.decisions().members(StageId(0)).size(), 4u);
}

TEST_F(Refilling, CountsThoseThatWereLostBeforeARestart) {
  step();
  hear(coordinator_.process_gone(PeerId(8), "was killed", now_));
  auto moves = lose_all_movers(seconds(1));
  ASSERT_EQ(moves.size(), 1u);
  for (int restart = 0; restart < 10 && count("stopping") == 0; ++restart) {
    coordinator_ = seated(plan_, seats(7), options());
    coordinator_.replay(log_);
    hear(coordinator_.tick(now_));
    for (const PeerId peer : std::set(lost_)) hear(coordinator_.process_gone(peer, "was killed", now_));
    hear(coordinator_.process_gone(PeerId(8), "was killed", now_));
    for (const Time at : lose_all_movers(seconds(100))) moves.push_back(at);
  }
  EXPECT_EQ(moves.size(), Rebalance::Options{}.refills);
  EXPECT_EQ(count("stopping"), 1u);
}

}  // namespace
}  // namespace isthmus::coordinator
