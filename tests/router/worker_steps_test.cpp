#include "router/worker_steps.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "router/answered_tokens.h"

namespace isthmus::router {
namespace {

protocol::Plan plan_of(std::uint32_t stages, std::uint32_t microbatches, std::uint64_t steps) {
  protocol::Plan plan;
  for (std::uint32_t s = 0; s < stages; ++s) plan.stages.push_back({s, s + 1, 1, microbatches});
  plan.steps = steps;
  plan.microbatches = microbatches;
  plan.evaluation_microbatches = 2;
  plan.evaluate_every = 2;
  plan.checkpoint_every = 3;
  plan.tokens_per_microbatch = 1;
  return plan;
}

// One worker alone, driven by hand.
class WorkerStepsAlone : public ::testing::Test {
 protected:
  WorkerStepsAlone()
      : plan_(plan_of(2, 2, 3)), worker_(plan_, {PeerId(2), StageId(1), ReplicaId(0), {}, seconds(2)}, {}, 5) {
    protocol::View view;
    view.epoch = EpochId(3);
    view.step = StepId(1);
    view.live = {{PeerId(1), SessionId(10), StageId(0), ReplicaId(0), {}, {}},
                 {PeerId(2), worker_.session(), StageId(1), ReplicaId(0), {}, {}}};
    view.head_owner = {SessionId(10), SessionId(10)};
    view.head_again = {false, false};
    view.last_session = worker_.session();
    (void)worker_.view_received(view, now_);
  }
  protocol::Forward forward(std::uint32_t m) const {
    protocol::Forward f;
    f.tag = {SessionId(10), worker_.session(), EpochId(3), StepId(1), 0};
    f.microbatch = MicrobatchId(m);
    f.n = 1;
    return f;
  }
  // Number of device operations that the effects start.
  static std::size_t operations(const std::vector<protocol::WorkerEffect>& effects) {
    return static_cast<std::size_t>(std::ranges::count_if(
        effects, [](const auto& e) { return std::holds_alternative<protocol::RunOperation>(e); }));
  }

  const protocol::Plan plan_;
  WorkerSteps worker_;
  Time now_ = seconds(1);
};

TEST_F(WorkerStepsAlone, RunsAMicrobatchThatIsForIt) {
  EXPECT_EQ(operations(worker_.message_received(PeerId(1), forward(0), now_)), 1u);
  EXPECT_EQ(worker_.refused(), 0u);
}

TEST_F(WorkerStepsAlone, RefusesWhatItsFencesForbid) {
  protocol::Forward other_life = forward(0);
  other_life.tag.to = SessionId(999);
  protocol::Forward stranger = forward(0);
  stranger.tag.from = SessionId(77);
  protocol::Forward old_step = forward(0);
  old_step.tag.step = StepId(0);
  protocol::Forward no_such = forward(7);
  protocol::Forward from_itself = forward(0);
  from_itself.tag.from = worker_.session();
  std::uint64_t refused = 0;
  for (const auto& [from, message] : {std::pair(1u, other_life), std::pair(1u, stranger), std::pair(1u, old_step),
                                      std::pair(1u, no_such), std::pair(3u, forward(0)), std::pair(2u, from_itself)}) {
    EXPECT_EQ(operations(worker_.message_received(PeerId(from), message, now_)), 0u);
    EXPECT_EQ(worker_.refused(), ++refused);
  }
  EXPECT_EQ(worker_.custody_bytes(), 0u);
}

TEST_F(WorkerStepsAlone, HoldsWhatANewerViewHasToExplainAndBoundsIt) {
  protocol::Forward early = forward(0);
  early.tag.epoch = EpochId(9);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(operations(worker_.message_received(PeerId(1), early, now_)), 0u);
  EXPECT_GT(worker_.refused(), 900u);
}

TEST_F(WorkerStepsAlone, AnswersARepeatedForwardWithoutComputingTwice) {
  (void)worker_.message_received(PeerId(1), forward(0), now_);
  EXPECT_EQ(operations(worker_.message_received(PeerId(1), forward(0), now_)), 0u);
}

// A view names the members that changed after the one it builds upon; this worker's own may be younger than that.
TEST_F(WorkerStepsAlone, CompletesAViewWithTheMembersItKnows) {
  protocol::View news = worker_.view();
  news.since = EpochId(3);
  news.epoch = EpochId(5);
  news.live = {{PeerId(3), SessionId(30), StageId(0), ReplicaId(1), {}, {}}};
  news.gone = {SessionId(10)};
  for (int times = 0; times < 2; ++times) {
    (void)worker_.view_received(news, now_);
    ASSERT_EQ(worker_.view().live.size(), 2u);
    EXPECT_EQ(worker_.view().live[0].session, SessionId(30));
    EXPECT_EQ(worker_.view().live[1].session, worker_.session());
  }
  news.epoch = EpochId(6);
  news.live.push_back({PeerId(4), SessionId(40), StageId(0), ReplicaId(0), {}, {}});
  (void)worker_.view_received(news, now_);
  ASSERT_EQ(worker_.view().live.size(), 3u);
  EXPECT_EQ(worker_.view().live[0].session, SessionId(40));
}

TEST_F(WorkerStepsAlone, TakesNoViewThatLeavesOutWhatItNeverKnew) {
  protocol::View news = worker_.view();
  news.since = EpochId(4);
  news.epoch = EpochId(5);
  news.live.clear();
  (void)worker_.view_received(news, now_);
  EXPECT_EQ(worker_.view().epoch, EpochId(3));
  EXPECT_EQ(worker_.view().live.size(), 2u);
  // What it reports tells the coordinator to begin further back.
  const auto effects = worker_.tick(now_ + seconds(1));
  const auto said =
      std::ranges::find_if(effects, [](const auto& e) { return std::holds_alternative<protocol::SendMessage>(e); });
  ASSERT_NE(said, effects.end());
  EXPECT_EQ(std::get<protocol::Report>(std::get<protocol::SendMessage>(*said).message).epoch, EpochId(3));
}

// The only stage of a run, for one step that ends like this; the checkpoints it writes.
std::size_t saves_after_a_step(bool apply) {
  protocol::Plan plan = plan_of(1, 1, 3);
  plan.checkpoint_every = 1;
  WorkerSteps worker(plan, {PeerId(1), StageId(0), ReplicaId(0), {}, seconds(2)}, {}, 5);
  std::size_t saves = 0;
  const std::function<void(std::vector<protocol::WorkerEffect>)> carry_out = [&](std::vector<protocol::WorkerEffect>
                                                                                     effects) {
    for (const auto& effect : effects) {
      if (const auto* run = std::get_if<protocol::RunOperation>(&effect))
        carry_out(worker.job_done(protocol::OperationDone{run->tag, run->task, {}, {}, {}}, seconds(1)));
      if (const auto* prepare = std::get_if<protocol::RunPrepare>(&effect))
        carry_out(worker.job_done(protocol::PrepareDone{prepare->tag, prepare->epoch, {}, true, "", {}}, seconds(1)));
      saves += std::holds_alternative<protocol::RunSave>(effect);
    }
    for (const auto& ids : answered_tokens(plan, effects)) carry_out(worker.tokens_received(ids, seconds(1)));
  };
  protocol::View view;
  view.epoch = EpochId(2);
  view.step = StepId(1);
  view.live = {{PeerId(1), worker.session(), StageId(0), ReplicaId(0), {}, {}}};
  view.head_owner = {worker.session()};
  view.head_again = {false};
  view.last_session = worker.session();
  carry_out(worker.view_received(view, seconds(1)));
  view.last_commit = protocol::Commit{StepId(1), 0, view.epoch, 1, apply, {}};
  view.epoch = EpochId(3);
  view.step = StepId(2);
  carry_out(worker.view_received(view, seconds(1)));
  EXPECT_EQ(worker.version(), 1u);
  return saves;
}

TEST(WorkerSteps, WritesNoCheckpointAfterASkippedStep) {
  EXPECT_EQ(saves_after_a_step(true), 1u);
  EXPECT_EQ(saves_after_a_step(false), 0u);
}

// Checkpoints are written while the run goes on, or back. Those of a past that did not happen are removed; nobody may
// count on them.
TEST_F(WorkerStepsAlone, CountsOnNoCheckpointThatWasWrittenWhileTheRunWentBack) {
  const auto reported = [&] {
    std::uint64_t checkpointed = 0;
    now_ += seconds(1);
    for (const auto& effect : worker_.tick(now_))
      if (const auto* send = std::get_if<protocol::SendMessage>(&effect))
        if (const auto* report = std::get_if<protocol::Report>(&send->message)) checkpointed = report->checkpointed;
    return checkpointed;
  };
  (void)worker_.job_done(protocol::SaveDone{3, 0, ""}, now_);
  EXPECT_EQ(reported(), 3u);
  protocol::View back = worker_.view();
  back.epoch = EpochId(4);
  back.rollbacks = {0};
  (void)worker_.view_received(back, now_);
  (void)worker_.job_done(protocol::SaveDone{5, 0, ""}, now_);
  EXPECT_EQ(reported(), 3u);
  (void)worker_.job_done(protocol::SaveDone{4, 1, ""}, now_);
  EXPECT_EQ(reported(), 4u);
}

TEST_F(WorkerStepsAlone, DrawsANewSessionOnceExpelled) {
  const SessionId before = worker_.session();
  protocol::View view = worker_.view();
  view.epoch = EpochId(4);
  view.live.pop_back();
  (void)worker_.view_received(view, now_);
  EXPECT_NE(worker_.session(), before);
}

}  // namespace
}  // namespace isthmus::router
