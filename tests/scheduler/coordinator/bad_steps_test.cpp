// What the coordinator does with bad steps: it skips them, and goes back to a checkpoint if they do not end.

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <set>

#include "scheduler/coordinator/coordinator.h"
#include "seated.h"

namespace isthmus::coordinator {
namespace {

constexpr double kUsual = 3, kSpike = 1e9, kNan = std::numeric_limits<double>::quiet_NaN();

// Two stages of one replica each, which write a checkpoint after every tenth step.
class BadSteps : public ::testing::Test {
 protected:
  BadSteps() : plan_(two_stages()) { start(); }

  static protocol::Plan two_stages() {
    protocol::Plan plan;
    plan.stages = {{0, 1, 1, 4}, {1, 2, 1, 4}};
    plan.steps = 1000;
    plan.microbatches = 2;
    plan.tokens_per_microbatch = 10;
    plan.checkpoint_every = 10;
    return plan;
  }
  static Coordinator::Options usual_options() {
    Coordinator::Options options;
    options.guard = {.sigmas = 6, .window = 16, .patience = 3};
    return options;
  }
  // Begins anew, or from the log as a coordinator that was killed.
  void start(const Coordinator::Options& options = usual_options()) {
    const std::vector<Seat> seats = {{PeerId(1), StageId(0), ReplicaId(0), {}},
                                     {PeerId(2), StageId(1), ReplicaId(0), {}}};
    coordinator_ = std::make_unique<Coordinator>(seated(plan_, seats, options));
    coordinator_->replay(log_);
    if (log_.empty()) hear(coordinator_->begin(0, now_));
    join();
  }
  const Decisions& decisions() const { return coordinator_->decisions(); }
  std::uint64_t version() const { return decisions().step.value - 1; }

  void hear(std::vector<CoordinatorEffect> effects) {
    for (auto& effect : effects) {
      if (auto* append = std::get_if<AppendRecord>(&effect)) log_.push_back(append->record);
      if (auto* event = std::get_if<Happened>(&effect)) events_.push_back(*event);
      if (auto* step = std::get_if<StepCommitted>(&effect)) commit_ = step->outcome.commit;
      if (auto* send = std::get_if<SendView>(&effect)) view_ = send->view;
    }
  }
  protocol::Report report(std::uint32_t stage) const {
    protocol::Report r;
    r.session = sessions_[stage];
    r.stage = StageId(stage);
    r.version = version();
    r.step = decisions().step;
    r.attempt = decisions().attempt;
    r.timeline = static_cast<std::uint32_t>(decisions().rollbacks.size());
    r.checkpointed = saved_;
    r.done = DoneSet(plan_.count(r.step));
    return r;
  }
  void join() {
    for (std::uint32_t stage : {0u, 1u}) {
      if (!decisions().is_live(sessions_[stage])) sessions_[stage] = SessionId(++drawn_);
      hear(coordinator_->received(PeerId(stage + 1), report(stage), now_));
    }
  }
  // Every stage takes the step as one whose loss is this; whether it was applied.
  bool take(double loss) {
    const StepId step = decisions().step;
    for (std::uint32_t stage : {0u, 1u}) {
      protocol::Report r = report(stage);
      for (std::uint32_t m = 0; m < r.done.count(); ++m) r.done.insert(MicrobatchId(m));
      r.prepared_epoch = decisions().epoch;
      r.norms = {{stage == 0 ? "layer.0" : "layer.1", 2.0}};
      if (stage == 1)
        for (std::uint32_t m = 0; m < r.done.count(); ++m) r.losses.push_back({MicrobatchId(m), 10 * loss, 10});
      hear(coordinator_->received(PeerId(stage + 1), r, now_));
    }
    EXPECT_EQ(commit_.step, step);
    if (decisions().live.empty()) {  // it went back
      saved_ = std::min(saved_, version());
      join();
    } else if (commit_.apply && !disk_full_ && version() % plan_.checkpoint_every == 0) {
      saved_ = version();
      join();
    }
    return commit_.apply;
  }
  void take(int steps, double loss) {
    for (int i = 0; i < steps; ++i) take(loss);
  }
  // Its worker comes back with this version, and without a journal.
  void lose_a_stage(std::uint64_t version_left) {
    hear(coordinator_->process_ended(PeerId(2), now_));
    sessions_[1] = SessionId(++drawn_);
    protocol::Report lost = report(1);
    lost.version = version_left;
    lost.unrecoverable = "its journal is gone";
    hear(coordinator_->received(PeerId(2), lost, now_));
    saved_ = std::min(saved_, version());
    join();
  }
  std::vector<RollbackRecord> rollbacks() const {
    std::vector<RollbackRecord> found;
    for (const auto& record : log_)
      if (const auto* rollback = std::get_if<RollbackRecord>(&record)) found.push_back(*rollback);
    return found;
  }
  std::size_t count(const std::string& event, const std::string& what) const {
    return static_cast<std::size_t>(std::ranges::count_if(events_, [&](const Happened& h) {
      return name_of(h.event) == event && text_of(h.event).find(what) != std::string::npos;
    }));
  }

  const protocol::Plan plan_;
  std::vector<LogRecord> log_;
  std::unique_ptr<Coordinator> coordinator_;
  Time now_ = seconds(100);
  std::vector<SessionId> sessions_ = {SessionId(0), SessionId(0)};
  std::uint64_t drawn_ = 0;
  std::uint64_t saved_ = 0;  // newest version on all disks
  bool disk_full_ = false;
  std::vector<Happened> events_;
  protocol::Commit commit_;
  protocol::View view_;
};

TEST_F(BadSteps, AreSkippedAndSaidToBe) {
  take(20, kUsual);
  EXPECT_FALSE(take(kSpike));
  EXPECT_EQ(count("committed", "skipped on every stage: the loss 1e+09 is "), 1u);
  const auto* record = std::get_if<CommitRecord>(&log_.back());
  ASSERT_NE(record, nullptr);
  EXPECT_FALSE(record->commit.apply);
  EXPECT_TRUE(record->reason.starts_with("the loss 1e+09 is ")) << record->reason;
  EXPECT_FALSE(take(kNan));
  EXPECT_EQ(count("committed", "skipped on every stage: the loss is not finite"), 1u);
  EXPECT_TRUE(take(kUsual));
  EXPECT_FALSE(take(kSpike));
  EXPECT_TRUE(rollbacks().empty());
}

TEST_F(BadSteps, TakeTheRunBackToACheckpointFromBeforeThem) {
  take(34, kUsual);
  take(3, kSpike);
  ASSERT_EQ(rollbacks().size(), 1u);
  EXPECT_EQ(rollbacks()[0].version, 30u);
  EXPECT_EQ(rollbacks()[0].left_out, (StepRange{StepId(31), StepId(37)}));
  EXPECT_EQ(count("rolled back",
                  "to version 30 on every stage; 3 steps in a row were bad; the data of steps 31 to 37 is left out"),
            1u);
  EXPECT_EQ(view_.rollbacks, std::vector<std::uint64_t>{30});
  // The data that led there comes again and changes nothing.
  EXPECT_EQ(version(), 30u);
  for (int step = 31; step <= 37; ++step) EXPECT_FALSE(take(kUsual)) << step;
  EXPECT_TRUE(take(kUsual));
  EXPECT_EQ(rollbacks().size(), 1u);
}

// The newest checkpoint holds the very weights that the bad steps found.
TEST_F(BadSteps, TakeTheRunBackToOlderWeightsThanTheyFound) {
  take(40, kUsual);
  take(3, kSpike);
  ASSERT_EQ(rollbacks().size(), 1u);
  EXPECT_EQ(rollbacks()[0].version, 30u);
  EXPECT_EQ(rollbacks()[0].left_out, (StepRange{StepId(31), StepId(43)}));
}

// Of what came long before them nothing is left out.
TEST_F(BadSteps, LeaveWhatCameLongBeforeThemToBeRepeated) {
  take(10, kUsual);
  disk_full_ = true;
  take(45, kUsual);
  take(3, kSpike);
  ASSERT_EQ(rollbacks().size(), 1u);
  EXPECT_EQ(rollbacks()[0].version, 10u);
  EXPECT_EQ(rollbacks()[0].left_out, (StepRange{StepId(40), StepId(58)}));
  for (int step = 11; step <= 39; ++step) EXPECT_TRUE(take(kUsual)) << step;
  EXPECT_FALSE(take(kUsual));
}

TEST_F(BadSteps, DoNotTakeTheRunBackToWhatIsNotOnEveryDiskAnyMore) {
  auto one = usual_options();
  one.checkpoints_kept = 1;
  start(one);
  take(40, kUsual);
  take(3, kSpike);
  EXPECT_TRUE(rollbacks().empty());
}

// Nor to one of a past that did not happen.
TEST_F(BadSteps, DoNotTakeTheRunBackToWhatWasForgotten) {
  take(40, kUsual);
  lose_a_stage(0);
  ASSERT_EQ(version(), 0u);
  disk_full_ = true;
  take(45, kUsual);
  take(3, kSpike);
  EXPECT_EQ(rollbacks().size(), 1u);
}

// A level that is there to stay costs a few steps twice.
TEST_F(BadSteps, AreUsualOnceTheyOutlastAnOlderVersion) {
  take(34, kUsual);
  int skipped = 0;
  for (int i = 0; i < 60; ++i) skipped += !take(2 * kUsual);
  EXPECT_EQ(rollbacks().size(), 1u);
  EXPECT_EQ(skipped, 3 + 7 + 3);
  EXPECT_EQ(count("warning",
                  "3 steps in a row were bad, and there is no checkpoint to go back to; the next ones are judged anew"),
            1u);
  EXPECT_EQ(view_.phase, protocol::Phase::kRunning);
  EXPECT_FALSE(take(kSpike));  // it is guarded as before
}

TEST_F(BadSteps, EndTheRunIfNoWeightsHelp) {
  take(34, kUsual);
  for (int i = 0; i < 100 && view_.phase == protocol::Phase::kRunning; ++i) take(kNan);
  EXPECT_EQ(rollbacks().size(), 1u);
  EXPECT_EQ(view_.phase, protocol::Phase::kStopping);
  EXPECT_NE(view_.reason.find("4 steps in a row were bad, and there is no checkpoint to go back to"), std::string::npos)
      << view_.reason;
  EXPECT_EQ(version(), 37u + 4u);
}

// Every version is gone back to once, so there is an end to it whatever the data.
TEST_F(BadSteps, NeverTakeTheRunRoundInACircle) {
  int steps = 0;
  for (; steps < 10000 && view_.phase == protocol::Phase::kRunning && version() < 600; ++steps) {
    const bool good = decisions().step.value % 7 < 4;
    take(good ? kUsual : kNan);
  }
  EXPECT_LT(steps, 2 * 600);
  std::set<std::uint64_t> versions;
  for (const auto& rollback : rollbacks()) EXPECT_TRUE(versions.insert(rollback.version).second) << rollback.version;
}

TEST_F(BadSteps, StayWithoutConsequenceIfTheRunMayNotGoBack) {
  auto never = usual_options();
  never.guard.patience = 0;
  start(never);
  take(34, kUsual);
  take(40, kNan);
  EXPECT_TRUE(rollbacks().empty());
  EXPECT_EQ(view_.phase, protocol::Phase::kRunning);
}

TEST_F(BadSteps, AreCountedOnByACoordinatorThatStartsAgain) {
  take(34, kUsual);
  take(2, kSpike);
  start();
  EXPECT_FALSE(take(kSpike));
  ASSERT_EQ(rollbacks().size(), 1u);
  EXPECT_EQ(rollbacks()[0].version, 30u);
  start();
  for (int step = 31; step <= 37; ++step) EXPECT_FALSE(take(kUsual)) << step;
  EXPECT_FALSE(take(kSpike));
  EXPECT_TRUE(take(kUsual));
}

// It died between the last bad step's record and that of going back.
TEST_F(BadSteps, TakeTheRunBackALittleLaterIfTheCoordinatorDiesBefore) {
  take(34, kUsual);
  take(3, kSpike);
  const auto at =
      std::ranges::find_if(log_, [](const LogRecord& r) { return std::holds_alternative<RollbackRecord>(r); });
  ASSERT_NE(at, log_.end());
  log_.erase(at, log_.end());
  sessions_ = {std::get<AdmitRecord>(log_[1]).member.session, std::get<AdmitRecord>(log_[2]).member.session};
  saved_ = 30;
  start();
  EXPECT_EQ(version(), 37u);
  EXPECT_FALSE(take(kNan));
  ASSERT_EQ(rollbacks().size(), 1u);
  EXPECT_EQ(rollbacks()[0].left_out, (StepRange{StepId(31), StepId(38)}));
}

// What a stage that was lost takes with it is taken again, and judged as it was.
TEST_F(BadSteps, AreTheSameAfterAStageWasLost) {
  const auto loss = [&] {
    return decisions().step.value % 13 == 12 ? 2 * kUsual : kUsual + .01 * (decisions().step.value % 5);
  };
  std::map<std::uint64_t, bool> applied;
  while (version() < 58) {
    const auto step = decisions().step.value;
    applied[step] = take(loss());
  }
  EXPECT_EQ(std::ranges::count(applied, false, [](const auto& a) { return a.second; }), 4);
  lose_a_stage(50);
  ASSERT_EQ(rollbacks().size(), 1u);
  EXPECT_TRUE(rollbacks()[0].left_out.empty());
  ASSERT_EQ(version(), 50u);
  while (version() < 58) {
    const auto step = decisions().step.value;
    EXPECT_EQ(take(loss()), applied[step]) << step;
  }
}

}  // namespace
}  // namespace isthmus::coordinator
