// A run whose checkpoints count once the vault has them.
#include <gtest/gtest.h>

#include <algorithm>

#include "seated.h"

namespace isthmus::coordinator {
namespace {

class RunWithAVault : public ::testing::Test {
 protected:
  RunWithAVault() {
    begin(true);
    for (const PeerId peer : {kHead, kTail}) hear(coordinator_->connected(peer, now_));
  }
  // As it is at its start; `fresh`: the first time.
  void begin(bool fresh) {
    Coordinator::Options options;
    options.vault = true;
    coordinator_.emplace(plan_, options);
    const auto log = seating_log({{kHead, StageId(0), ReplicaId(0), {}},
                                  {kTail, StageId(1), ReplicaId(0), {}},
                                  {kSpare, StageId(1), ReplicaId(1), {}}});
    coordinator_->replay(log);
    if (fresh) hear(coordinator_->begin(0, now_));
  }
  void hear(std::vector<CoordinatorEffect> effects) {
    for (auto& effect : effects) {
      if (auto* append = std::get_if<AppendRecord>(&effect)) log_.push_back(append->record);
      if (auto* send = std::get_if<SendView>(&effect)) views_[send->peer] = send->view;
      if (auto* end = std::get_if<RunEnded>(&effect)) end_ = *end;
    }
  }
  std::vector<CheckpointRecord> written() const {
    std::vector<CheckpointRecord> written;
    for (const auto& record : log_)
      if (const auto* checkpoint = std::get_if<CheckpointRecord>(&record)) written.push_back(*checkpoint);
    return written;
  }
  protocol::Report report(std::uint32_t stage, std::uint64_t session, std::uint64_t version) const {
    protocol::Report r;
    r.session = SessionId(session);
    r.stage = StageId(stage);
    r.replica = ReplicaId(session >= 300 ? 1 : 0);
    r.version = version;
    r.step = coordinator_->decisions().step;
    r.attempt = coordinator_->decisions().attempt;
    r.timeline = static_cast<std::uint32_t>(coordinator_->decisions().rollbacks.size());
    r.done = DoneSet(plan_.count(coordinator_->decisions().step));
    return r;
  }
  void say(PeerId peer, const protocol::Report& r) { hear(coordinator_->received(peer, r, now_)); }
  void join() {
    say(kHead, report(0, 100, 0));
    say(kTail, report(1, 200, 0));
  }
  // Both stages do the running step.
  void step() {
    for (const std::uint32_t stage : {0u, 1u}) {
      protocol::Report r = report(stage, stage == 0 ? 100 : 200, coordinator_->decisions().step.value - 1);
      for (std::uint32_t m = 0; m < r.done.count(); ++m) r.done.insert(MicrobatchId(m));
      r.prepared_epoch = coordinator_->decisions().epoch;
      r.norms = {{stage == 0 ? "layer.0" : "layer.1", 2.0}};
      if (stage == 1)
        for (std::uint32_t m = 0; m < r.done.count(); ++m) r.losses.push_back({MicrobatchId(m), 30.0, 10});
      say(stage == 0 ? kHead : kTail, r);
    }
  }
  void leave() {
    for (const std::uint32_t stage : {0u, 1u}) {
      protocol::Report r = report(stage, stage == 0 ? 100 : 200, plan_.steps);
      r.left = true;
      r.checkpointed = plan_.steps;
      r.weights = {{stage == 0 ? "layer.0" : "layer.1", "abc"}};
      say(stage == 0 ? kHead : kTail, r);
    }
  }

  static constexpr PeerId kHead{1}, kTail{2}, kSpare{3};
  const protocol::Plan plan_ = [] {
    protocol::Plan plan;
    plan.stages = {{0, 1, 1, 4}, {1, 2, 2, 4}};
    plan.steps = 3;
    plan.microbatches = 2;
    plan.tokens_per_microbatch = 10;
    return plan;
  }();
  Time now_ = seconds(100);
  std::optional<Coordinator> coordinator_;
  std::vector<LogRecord> log_;
  std::map<PeerId, protocol::View> views_;
  std::optional<RunEnded> end_;
};

TEST_F(RunWithAVault, CountsNoCheckpointThatIsOnADiskAlone) {
  join();
  for (int i = 0; i < 3; ++i) step();
  for (const std::uint32_t stage : {0u, 1u}) {
    protocol::Report r = report(stage, stage == 0 ? 100 : 200, 3);
    r.checkpointed = 2;
    say(stage == 0 ? kHead : kTail, r);
  }
  EXPECT_TRUE(written().empty());
  // But the vault's process is told who could give it.
  const auto holders = coordinator_->checkpoint_holders();
  ASSERT_EQ(holders.size(), 2u);
  for (const auto& holder : holders) EXPECT_EQ(holder.version, 2u);
  hear(coordinator_->vaulted(StageId(0), 2, now_));
  EXPECT_EQ(written(), std::vector<CheckpointRecord>({{StageId(0), 2}}));
  EXPECT_EQ(coordinator_->decisions().checkpointed, std::vector<std::uint64_t>({2, 0}));
}

TEST_F(RunWithAVault, WritesEachOnceAndNoneThatIsOlder) {
  join();
  for (int i = 0; i < 3; ++i) step();
  for (const std::uint64_t version : {2u, 2u, 1u, 3u, 3u, 2u}) hear(coordinator_->vaulted(StageId(1), version, now_));
  EXPECT_EQ(written(), std::vector<CheckpointRecord>({{StageId(1), 2}, {StageId(1), 3}}));
}

TEST_F(RunWithAVault, NamesItsHoldersOfThisTimelineAndLifeOnly) {
  join();
  step();
  protocol::Report r = report(0, 100, 1);
  r.checkpointed = 1;
  r.timeline = 7;
  say(kHead, r);
  const auto holders = coordinator_->checkpoint_holders();
  ASSERT_EQ(holders.size(), 1u);
  EXPECT_EQ(holders[0].peer, kTail);
}

TEST_F(RunWithAVault, TellsOnlyWhoWantsToServeAnEmptyStage) {
  join();
  for (int i = 0; i < 3; ++i) step();
  hear(coordinator_->vaulted(StageId(0), 2, now_));
  hear(coordinator_->vaulted(StageId(1), 1, now_));
  hear(coordinator_->connected(kSpare, now_));
  say(kSpare, report(1, 300, 0));
  ASSERT_TRUE(views_.contains(kSpare));
  EXPECT_EQ(views_[kSpare].vaulted, 0u) << "it has a sibling";
  hear(coordinator_->process_ended(kTail, now_));
  now_ += seconds(1);
  hear(coordinator_->tick(now_));
  EXPECT_EQ(views_[kSpare].vaulted, 1u);
  EXPECT_EQ(views_[kHead].vaulted, 0u);
  // Who comes back to it is told as well.
  hear(coordinator_->connected(kTail, now_));
  say(kTail, report(1, 201, 0));
  EXPECT_EQ(views_[kTail].vaulted, 1u);
  // And nobody once one of them serves.
  say(kSpare, report(1, 300, 3));
  ASSERT_NE(coordinator_->decisions().live_of(kSpare), nullptr);
  now_ += seconds(1);
  hear(coordinator_->tick(now_));
  for (const auto& [peer, view] : views_) EXPECT_EQ(view.vaulted, 0u) << peer.value;
}

TEST_F(RunWithAVault, EndsOnceTheLastVersionIsOnItsWayNoMore) {
  join();
  coordinator_->vault_is_busy(true);
  for (int i = 0; i < 4; ++i) step();
  ASSERT_EQ(coordinator_->phase(), protocol::Phase::kFinished);
  leave();
  now_ += seconds(1000);
  hear(coordinator_->tick(now_));
  EXPECT_FALSE(end_);
  // Both came at the same moment: nothing is unsaved when the first is said.
  coordinator_->vault_is_busy(false);
  hear(coordinator_->vaulted(StageId(0), 3, now_));
  hear(coordinator_->vaulted(StageId(1), 3, now_));
  now_ += seconds(1);
  hear(coordinator_->tick(now_));
  ASSERT_TRUE(end_);
  EXPECT_TRUE(end_->finished);
  EXPECT_EQ(end_->unsaved, "");
}

TEST_F(RunWithAVault, SaysWhichStagesTheVaultLacksInTheEnd) {
  join();
  for (int i = 0; i < 4; ++i) step();
  hear(coordinator_->vaulted(StageId(0), 3, now_));
  hear(coordinator_->vaulted(StageId(1), 2, now_));
  leave();
  now_ += seconds(1);
  hear(coordinator_->tick(now_));
  ASSERT_TRUE(end_);
  EXPECT_TRUE(end_->finished);
  EXPECT_EQ(end_->unsaved, "1");
}

// Somebody who is asked to stop at once does not wait for an upload.
TEST_F(RunWithAVault, DoesNotWaitForTheVaultWhenItIsStopped) {
  join();
  coordinator_->vault_is_busy(true);
  hear(coordinator_->stop("interrupted", now_));
  leave();
  EXPECT_TRUE(end_);
}

TEST_F(RunWithAVault, IsTheSameAfterItsLogWasReadAgain) {
  join();
  for (int i = 0; i < 3; ++i) step();
  hear(coordinator_->vaulted(StageId(0), 2, now_));
  hear(coordinator_->vaulted(StageId(1), 1, now_));
  const Decisions before = coordinator_->decisions();
  begin(false);
  coordinator_->replay(log_);
  const Decisions& after = coordinator_->decisions();
  EXPECT_EQ(after.epoch, before.epoch);
  EXPECT_EQ(after.checkpointed, before.checkpointed);
  EXPECT_EQ(after.whole, before.whole);
  EXPECT_EQ(after.commits, before.commits);
  log_.clear();
  hear(coordinator_->vaulted(StageId(0), 2, now_));
  EXPECT_TRUE(written().empty());
  hear(coordinator_->vaulted(StageId(1), 2, now_));
  EXPECT_EQ(written(), std::vector<CheckpointRecord>({{StageId(1), 2}}));
  EXPECT_EQ(coordinator_->decisions().whole, 2u);
}

}  // namespace
}  // namespace isthmus::coordinator
