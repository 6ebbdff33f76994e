// Replicas that step on their own, as plan and coordinator see them.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "scheduler/coordinator/coordinator.h"
#include "scheduler/coordinator/step_result.h"
#include "seated.h"

namespace isthmus::coordinator {
namespace {

protocol::Plan plan_of(std::uint64_t steps, std::uint64_t every) {
  protocol::Plan plan;
  plan.steps = steps;
  plan.sync_every = every;
  plan.microbatches = 4;
  plan.evaluation_microbatches = 2;
  return plan;
}

TEST(Syncs, ComeEverySoManyStepsAndOnceMoreBehindTheLast) {
  const protocol::Plan plan = plan_of(10, 4);
  std::vector<std::uint64_t> syncs;
  for (std::uint64_t step = 1; step <= plan.final_step().value; ++step)
    if (plan.syncs(StepId(step))) syncs.push_back(step);
  EXPECT_EQ(syncs, std::vector<std::uint64_t>({5, 9, 11}));
  EXPECT_EQ(plan.final_step(), StepId(12));
  EXPECT_EQ(plan.count(StepId(11)), 0u);  // nothing but the sync
  EXPECT_EQ(plan.count(StepId(12)), 2u);  // of what came of it
  EXPECT_EQ(plan_of(10, 0).final_step(), StepId(11));
}

// Whoever joins asks for these; they have to name commits that were syncs.
TEST(Syncs, TheNewestAndTheNextFitTheStepsThatSync) {
  for (const std::uint64_t every : {1, 3, 4, 10, 15})
    for (const protocol::Plan& plan = plan_of(10, every);
         const std::uint64_t version : {0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12}) {
      std::uint64_t last = 0, next = 0;
      for (std::uint64_t step = 1; step <= 11; ++step) {
        if (!plan.syncs(StepId(step))) continue;
        if (step <= version) last = step;
        if (step > version && next == 0) next = step;
      }
      EXPECT_EQ(plan.last_sync(version), last) << every << " " << version;
      if (next == 0) continue;
      EXPECT_EQ(plan.next_sync(version), next) << every << " " << version;
    }
}

// Of a gradient of all microbatches, each replica has a share of as much.
TEST(Syncs, TheNormOfAStageIsTheMeanOverItsMicrobatches) {
  const auto mean = mean_norms({{1, {{"layer.0", 2.0}}}, {3, {{"layer.0", 30.0}}}, {0, {{"layer.0", 0.0}}}});
  ASSERT_EQ(mean.size(), 1u);
  // (4/1)² · 2 for a quarter, (4/3)² · 30 for three quarters.
  EXPECT_DOUBLE_EQ(mean[0].norm2, 16 * 2.0 / 4 + 16.0 / 9 * 30.0 * 3 / 4);
}

class SyncCoordinator : public ::testing::Test {
 protected:
  static protocol::Plan plan() {
    protocol::Plan plan = plan_of(10, 2);
    plan.evaluation_microbatches = 0;
    plan.tokens_per_microbatch = 10;
    protocol::StagePlan& stage = plan.stages.emplace_back();
    stage.end_layer = 1;
    stage.replicas = 4;
    stage.local = true;
    return plan;
  }
  static std::vector<Seat> seats() {
    std::vector<Seat> seats;
    for (std::uint32_t r = 0; r < 4; ++r) seats.push_back({PeerId(r + 1), StageId(0), ReplicaId(r), {}});
    return seats;
  }
  void hear(std::vector<CoordinatorEffect> effects) {
    for (auto& effect : effects) {
      if (auto* happened = std::get_if<Happened>(&effect))
        if (const auto* offender = std::get_if<events::Offender>(&happened->event))
          offenders_.push_back(offender->peer);
      if (auto* step = std::get_if<StepCommitted>(&effect)) outcomes_.push_back(step->outcome);
    }
  }
  protocol::Report report(std::uint32_t replica) const {
    protocol::Report r;
    r.session = SessionId(100 + replica);
    r.replica = ReplicaId(replica);
    r.version = coordinator_.decisions().step == StepId(0) ? 0 : coordinator_.decisions().step.value - 1;
    r.step = coordinator_.decisions().step;
    r.attempt = coordinator_.decisions().attempt;
    r.done = DoneSet(plan_.count(r.step));
    return r;
  }
  void begin() {
    hear(coordinator_.begin(0, now_));
    for (std::uint32_t r = 0; r < 4; ++r) hear(coordinator_.received(PeerId(r + 1), report(r), now_));
  }
  void accuse(std::uint32_t by, std::uint32_t whom, std::uint64_t version) {
    protocol::Report r = report(by);
    r.offences = {{SessionId(100 + whom), version, "noise"}};
    hear(coordinator_.received(PeerId(by + 1), r, now_));
  }

  const protocol::Plan plan_ = plan();
  Coordinator coordinator_ = seated(plan_, seats(), {});
  Time now_ = seconds(100);
  std::vector<PeerId> offenders_;
  std::vector<StepOutcome> outcomes_;
};

TEST_F(SyncCoordinator, NamesWhomMostOfItsSiblingsFindAtFaultOnceForEachSync) {
  begin();
  accuse(0, 2, 4);
  EXPECT_TRUE(offenders_.empty());
  accuse(0, 2, 4);  // one voice, however often
  EXPECT_TRUE(offenders_.empty());
  accuse(1, 2, 4);
  EXPECT_EQ(offenders_, std::vector<PeerId>({PeerId(3)}));
  accuse(3, 2, 4);
  EXPECT_EQ(offenders_.size(), 1u);
  accuse(0, 2, 6);
  accuse(1, 2, 4);  // late, of a sync before
  EXPECT_EQ(offenders_.size(), 1u);
  accuse(1, 2, 6);
  EXPECT_EQ(offenders_.size(), 2u);
}

TEST_F(SyncCoordinator, ALiarCannotNameOthersAlone) {
  begin();
  for (const std::uint64_t version : {2, 4, 6})
    for (const std::uint32_t whom : {0, 1, 3}) accuse(2, whom, version);
  accuse(2, 2, 8);
  EXPECT_TRUE(offenders_.empty());
}

// Where a run falls apart all updates are odd, and each finds fault with the others.
TEST_F(SyncCoordinator, NamesNobodyWhereAllFindFaultWithAll) {
  begin();
  for (std::uint32_t by = 0; by < 4; ++by) {
    protocol::Report r = report(by);
    for (std::uint32_t whom = 0; whom < 4; ++whom)
      if (whom != by) r.offences.push_back({SessionId(100 + whom), 4, "not finite"});
    hear(coordinator_.received(PeerId(by + 1), r, now_));
  }
  EXPECT_TRUE(offenders_.empty());
}

TEST_F(SyncCoordinator, NamesTheLiarAlsoIfItAccusesEverybody) {
  begin();
  for (const std::uint32_t whom : {0, 1, 3}) accuse(2, whom, 4);
  for (const std::uint32_t by : {0, 1, 3}) accuse(by, 2, 4);
  EXPECT_EQ(offenders_, std::vector<PeerId>({PeerId(3)}));
}

// It has no microbatch, so nothing of it is missing; but without members nobody can have agreed on anything.
TEST_F(SyncCoordinator, CommitsNoSyncThatNobodyTookPartIn) {
  hear(coordinator_.begin(10, now_));
  ASSERT_EQ(coordinator_.decisions().step, StepId(11));
  ASSERT_EQ(plan_.count(StepId(11)), 0u);
  for (int i = 0; i < 20; ++i) hear(coordinator_.tick(now_ += seconds(0.1)));
  EXPECT_TRUE(outcomes_.empty());
  protocol::Report r = report(0);
  hear(coordinator_.received(PeerId(1), r, now_));
  r.prepared_epoch = coordinator_.decisions().epoch;
  hear(coordinator_.received(PeerId(1), r, now_));
  EXPECT_EQ(outcomes_.size(), 1u);
}

// Their own sums differ, which is no fault; the decision is one for all.
TEST_F(SyncCoordinator, CommitsWithTheMeanOfTheirNorms) {
  begin();
  for (std::uint32_t replica = 0; replica < 4; ++replica) {
    protocol::Report r = report(replica);
    r.done.insert(MicrobatchId(replica));
    r.losses = {{MicrobatchId(replica), 30.0, 10}};
    hear(coordinator_.received(PeerId(replica + 1), r, now_));
  }
  for (std::uint32_t replica = 0; replica < 4; ++replica) {
    protocol::Report r = report(replica);
    r.done.insert(MicrobatchId(replica));
    r.losses = {{MicrobatchId(replica), 30.0, 10}};
    r.prepared_epoch = coordinator_.decisions().epoch;
    r.norms = {{"layer.0", replica + 1.0}};
    hear(coordinator_.received(PeerId(replica + 1), r, now_));
  }
  ASSERT_EQ(outcomes_.size(), 1u);
  // Each is of a quarter of the microbatches: the mean of 16 · (1, 2, 3, 4).
  EXPECT_DOUBLE_EQ(outcomes_[0].figures.grad_norm, std::sqrt(16 * 2.5));
  EXPECT_DOUBLE_EQ(outcomes_[0].figures.loss, 3.0);
}

}  // namespace
}  // namespace isthmus::coordinator
