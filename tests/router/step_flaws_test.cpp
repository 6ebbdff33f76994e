// Each test is a way in which a simpler protocol loses or doubles a microbatch, or gets stuck (docs/protocol.md): one
// real worker in the middle of three stages with two replicas each, its peers played by hand.
#include <gtest/gtest.h>

#include <algorithm>

#include "router/worker_steps.h"

namespace isthmus::router {
namespace {

constexpr PeerId kA(1), kB(2), kMe(3), kSibling(4), kC(5), kD(6);
constexpr Duration kAskAfter = seconds(2);

protocol::Plan three_by_two() {
  protocol::Plan plan;
  for (std::uint32_t s = 0; s < 3; ++s) plan.stages.push_back({s, s + 1, 2, 4});
  plan.steps = 4;
  plan.microbatches = 2;
  plan.tokens_per_microbatch = 1;
  return plan;
}

class StepFlaws : public ::testing::Test {
 protected:
  StepFlaws() {
    view_.epoch = EpochId(3);
    view_.step = StepId(1);
    for (std::uint32_t peer = 1; peer <= 6; ++peer)
      view_.live.push_back(
          {PeerId(peer), SessionId(10 + peer), StageId((peer - 1) / 2), ReplicaId((peer - 1) % 2), {}, {}});
    view_.live[2].session = worker_.session();
    view_.head_owner = {SessionId(11), SessionId(11)};
    view_.head_again = {false, false};
    view_.last_session = worker_.session();
    see();
    for (const auto& member : view_.live)
      if (member.peer != kMe) take(worker_.peer_connected(member.peer, now_));
    out_.clear();
  }

  // What came out of the worker since the last call of one of these; operations are carried out at once.
  void take(std::vector<protocol::WorkerEffect> effects) {
    for (std::size_t i = 0; i < effects.size(); ++i) {
      out_.push_back(effects[i]);
      const auto* run = std::get_if<protocol::RunOperation>(&effects[i]);
      if (!run || !computes_) continue;
      for (auto& more : worker_.job_done(protocol::OperationDone{run->tag, run->task, {}, {}, {}}, now_))
        effects.push_back(std::move(more));
    }
  }
  void see() {
    out_.clear();
    take(worker_.view_received(view_, now_));
  }
  template <class Body>
  void hear(PeerId from, Body body) {
    out_.clear();
    take(worker_.message_received(from, std::move(body), now_));
  }
  void wait(Duration time) {
    out_.clear();
    now_ += time;
    take(worker_.tick(now_));
  }
  void done(protocol::JobResult result) {
    out_.clear();
    take(worker_.job_done(std::move(result), now_));
  }
  void expel(PeerId peer) {
    view_.epoch.value++;
    std::erase_if(view_.live, [&](const protocol::Member& m) { return m.peer == peer; });
  }
  template <class Effect>
  std::vector<Effect> all() const {
    std::vector<Effect> found;
    for (const auto& effect : out_)
      if (const auto* e = std::get_if<Effect>(&effect)) found.push_back(*e);
    return found;
  }
  template <class Body>
  std::vector<std::pair<PeerId, Body>> sent() const {
    std::vector<std::pair<PeerId, Body>> found;
    for (const auto& message : all<protocol::SendMessage>())
      if (const auto* body = std::get_if<Body>(&message.message)) found.emplace_back(message.peer, *body);
    return found;
  }
  protocol::StepTag from(PeerId peer) const {
    return {SessionId(10 + peer.value), worker_.session(), view_.epoch, view_.step, view_.attempt};
  }
  protocol::Forward forward(PeerId peer, std::uint32_t n = 1, bool again = false) const {
    return {from(peer), MicrobatchId(0), n, again, {}};
  }
  // Hands microbatch 0 in, and returns to whom it was sent on.
  PeerId passes_on() {
    hear(kA, forward(kA));
    const auto forwards = sent<protocol::Forward>();
    EXPECT_EQ(forwards.size(), 1u);
    return forwards.empty() ? kC : forwards.front().first;
  }
  static PeerId other(PeerId peer) { return peer == kC ? kD : kC; }
  // Both microbatches belong to the sibling; this worker takes part in the sum with nothing of its own.
  void prepare() {
    view_.preparing = true;
    DoneSet both(2);
    both.insert(MicrobatchId(0));
    both.insert(MicrobatchId(1));
    view_.owners = {{SessionId(14), both}};
    ++view_.epoch.value;
    see();
    ASSERT_EQ(all<protocol::RunClose>().size(), 1u);
  }
  void prepare_to_the_end() {
    prepare();
    const auto close = all<protocol::RunClose>().front();
    done(protocol::CloseDone{close.tag, close.epoch, share({}), true});
    hear(kSibling, protocol::Part{from(kSibling), 0, true, {}});
    ASSERT_EQ(all<protocol::RunAdd>().size(), 1u);
    done(protocol::AddDone{close.tag, close.epoch, share({})});
    hear(kSibling, protocol::Total{from(kSibling), 1, true, {}});
    ASSERT_EQ(all<protocol::RunPrepare>().size(), 1u);
    done(protocol::PrepareDone{close.tag, close.epoch, {}, true, "sum", nullptr});
  }

  const protocol::Plan plan_ = three_by_two();
  WorkerSteps worker_{plan_, {kMe, StageId(1), ReplicaId(0), {}, kAskAfter}, {}, 5};
  Time now_ = seconds(1);
  protocol::View view_;
  bool computes_ = true;
  std::vector<protocol::WorkerEffect> out_;
};

TEST_F(StepFlaws, WhatAnExpelledReplicaStillHasInFlightIsRefused) {
  const protocol::Forward delayed = forward(kA);
  expel(kA);
  see();
  hear(kB, protocol::Ask{from(kB), MicrobatchId(0), 1});
  EXPECT_EQ(sent<protocol::Free>().size(), 1u);
  hear(kA, delayed);
  EXPECT_TRUE(all<protocol::RunOperation>().empty());
}

TEST_F(StepFlaws, AnAskOfANewerViewIsNotAnsweredBeforeThatView) {
  const protocol::Forward delayed = forward(kA);
  expel(kA);  // the asker knows, this worker does not yet
  hear(kB, protocol::Ask{from(kB), MicrobatchId(0), 1});
  EXPECT_TRUE(sent<protocol::Free>().empty());
  hear(kA, delayed);  // still legal here: so the answer must be Held
  see();
  EXPECT_TRUE(sent<protocol::Free>().empty());
  const auto held = sent<protocol::Held>();
  ASSERT_EQ(held.size(), 1u);
  EXPECT_EQ(held.front().first, kB);
}

TEST_F(StepFlaws, AMicrobatchOfANewerViewDoesNotEnterASumBeingCombined) {
  prepare();
  ++view_.epoch.value;
  hear(kA, forward(kA));
  EXPECT_TRUE(all<protocol::RunOperation>().empty());
  view_.preparing = false;
  view_.owners.clear();
  see();
  EXPECT_FALSE(all<protocol::RunOperation>().empty());
}

TEST_F(StepFlaws, AReplacementSearchesBeforeItForwards) {
  hear(kA, forward(kA, 1, true));
  EXPECT_TRUE(sent<protocol::Forward>().empty());
  EXPECT_EQ(sent<protocol::Ask>().size(), 2u);  // everybody of the next stage
  const std::uint32_t n = sent<protocol::Ask>().front().second.n;
  hear(kD, protocol::Held{from(kD), MicrobatchId(0), n, {}});
  hear(kC, protocol::Free{from(kC), MicrobatchId(0), n});
  EXPECT_TRUE(sent<protocol::Forward>().empty());
}

TEST_F(StepFlaws, WhoeverGetsASearchedMicrobatchSearchesToo) {
  hear(kA, forward(kA, 1, true));
  const std::uint32_t n = sent<protocol::Ask>().front().second.n;
  hear(kC, protocol::Free{from(kC), MicrobatchId(0), n});
  EXPECT_TRUE(sent<protocol::Forward>().empty());
  hear(kD, protocol::Free{from(kD), MicrobatchId(0), n});
  ASSERT_EQ(sent<protocol::Forward>().size(), 1u);
  EXPECT_TRUE(sent<protocol::Forward>().front().second.again);
}

TEST_F(StepFlaws, ASuccessorThatDiedAfterItsGradientIsReplaced) {
  const PeerId successor = passes_on();
  hear(successor, protocol::Backward{from(successor), MicrobatchId(0), {}});
  expel(successor);
  see();
  ASSERT_EQ(sent<protocol::Forward>().size(), 1u);
  EXPECT_EQ(sent<protocol::Forward>().front().first, other(successor));
  EXPECT_TRUE(sent<protocol::Forward>().front().second.again);
}

TEST_F(StepFlaws, ACommitOfAnotherEpochsSumIsNotApplied) {
  prepare_to_the_end();
  const EpochId mine = view_.epoch;
  expel(kMe);
  view_.step = StepId(2);
  view_.preparing = false;
  view_.last_commit = protocol::Commit{StepId(1), 0, EpochId(mine.value + 1), 1, true};
  ++view_.epoch.value;
  see();
  EXPECT_TRUE(all<protocol::RunApply>().empty());
  EXPECT_EQ(worker_.version(), 0u);
}

TEST_F(StepFlaws, ACommitThatWasLostComesWithTheNextView) {
  prepare_to_the_end();
  view_.last_commit = protocol::Commit{StepId(1), 0, view_.epoch, 1, true};
  view_.step = StepId(2);
  view_.preparing = false;
  ++view_.epoch.value;
  expel(kC);  // the commit's own view was lost; this one tells of something else
  see();
  EXPECT_EQ(all<protocol::RunApply>().size(), 1u);
  EXPECT_EQ(worker_.version(), 1u);
}

TEST_F(StepFlaws, ATotalOfAnotherEpochIsRefused) {
  prepare();
  protocol::Total late{from(kSibling), 1, true, {}};
  ++view_.epoch.value;
  see();
  const std::uint64_t before = worker_.refused();
  hear(kSibling, late);
  EXPECT_EQ(worker_.refused(), before + 1);
}

TEST_F(StepFlaws, WhatWasCancelledStaysRefused) {
  computes_ = false;
  hear(kA, protocol::Forward{from(kA), MicrobatchId(1), 1, false, {}});  // occupies the device
  hear(kA, forward(kA));
  hear(kA, protocol::Cancel{from(kA), MicrobatchId(0), 1});
  ASSERT_EQ(sent<protocol::Cancelled>().size(), 1u);
  hear(kA, forward(kA));  // the second copy of a Forward that was sent twice
  EXPECT_TRUE(sent<protocol::Held>().empty());
  hear(kA, protocol::Ask{from(kA), MicrobatchId(0), 1});
  EXPECT_EQ(sent<protocol::Cancelled>().size(), 1u);
  hear(kA, forward(kA, 2));  // a new choice is another matter
  EXPECT_EQ(sent<protocol::Held>().size(), 1u);
}

TEST_F(StepFlaws, ALateHeldDoesNotUndoACancel) {
  const PeerId successor = passes_on();
  const std::uint32_t n = sent<protocol::Forward>().front().second.n;
  hear(successor, protocol::Held{from(successor), MicrobatchId(0), n, {100'000'000, 1'000'000}});
  hear(other(successor), protocol::Receipt{from(other(successor)), 0, {0, 1'000'000}});
  wait(4 * kAskAfter);
  ASSERT_FALSE(sent<protocol::Cancel>().empty());
  hear(successor,
       protocol::Held{from(successor), MicrobatchId(0), n, {100'000'000, 1'000'000}});  // answers an older Ask
  hear(successor, protocol::Cancelled{from(successor), MicrobatchId(0), n, {100'000'000, 1'000'000}});
  ASSERT_EQ(sent<protocol::Forward>().size(), 1u);
  EXPECT_EQ(sent<protocol::Forward>().front().first, other(successor));
}

TEST_F(StepFlaws, AHeldOfAnEarlierChoiceDoesNotStopTheAsking) {
  const PeerId first = passes_on();
  const std::uint32_t n = sent<protocol::Forward>().front().second.n;
  hear(first, protocol::Busy{from(first), MicrobatchId(0), n, {}});
  ASSERT_EQ(sent<protocol::Forward>().size(), 1u);
  hear(other(first), protocol::Backward{from(other(first)), MicrobatchId(0), {}});
  expel(other(first));
  see();  // to the first again, and that is lost
  ASSERT_EQ(sent<protocol::Forward>().size(), 1u);
  ASSERT_EQ(sent<protocol::Forward>().front().first, first);
  hear(first, protocol::Held{from(first), MicrobatchId(0), n, {}});
  wait(kAskAfter);
  EXPECT_EQ(sent<protocol::Ask>().size(), 1u);
}

TEST_F(StepFlaws, AnExpelledReplicaComesBackWithNothing) {
  hear(kA, forward(kA));
  const SessionId before = worker_.session();
  expel(kMe);
  see();
  EXPECT_EQ(all<protocol::RunDropStep>().size(), 1u);
  EXPECT_NE(worker_.session(), before);
  EXPECT_EQ(worker_.custody_bytes(), 0u);
  const auto reports = sent<protocol::Report>();
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back().second.done.size(), 0u);
}

TEST_F(StepFlaws, ABurntSessionIsNotWaitedFor) {
  WorkerSteps newcomer(plan_, {kMe, StageId(1), ReplicaId(0), {}, kAskAfter}, {}, 6);
  const SessionId before = newcomer.session();
  expel(kMe);  // admitted and expelled before its first view
  view_.last_session = before;
  (void)newcomer.view_received(view_, now_);
  EXPECT_NE(newcomer.session(), before);
}

TEST_F(StepFlaws, AnOldViewIsNotBelievedAboutAStepThatIsOver) {
  WorkerSteps ahead(plan_, {kMe, StageId(1), ReplicaId(0), {}, kAskAfter}, {1, 0}, 5);  // has fetched version 1
  (void)ahead.view_received(view_, now_);                                               // step 1; it is live there
  const auto effects = ahead.message_received(kA, forward(kA), now_);
  EXPECT_TRUE(
      std::ranges::none_of(effects, [](const auto& e) { return std::holds_alternative<protocol::RunOperation>(e); }));
  EXPECT_EQ(ahead.refused() + ahead.held_messages(), 1u);
}

TEST_F(StepFlaws, AnotherAttemptOfTheStepStartsFromNothing) {
  hear(kA, forward(kA));
  ++view_.attempt;
  ++view_.epoch.value;
  see();
  EXPECT_EQ(all<protocol::RunDropStep>().size(), 1u);
  EXPECT_EQ(worker_.custody_bytes(), 0u);
  EXPECT_TRUE(sent<protocol::Forward>().empty());
}

// Later stages may have added the microbatch on the full path already: a sum of two different functions.
TEST_F(StepFlaws, AnEmptyStageIsNotSkippedInTheRunningAttempt) {
  passes_on();
  expel(kC);
  expel(kD);
  see();
  wait(kAskAfter);
  EXPECT_TRUE(sent<protocol::Forward>().empty());
  // Nor does the stage behind one that is empty take what should have come through it.
  WorkerSteps behind(plan_, {kC, StageId(2), ReplicaId(0), {}, kAskAfter}, {}, 9);
  protocol::View view = view_;
  ++view.epoch.value;
  view.live = {{kA, SessionId(11), StageId(0), ReplicaId(0), {}, {}},
               {kC, behind.session(), StageId(2), ReplicaId(0), {}, {}}};
  view.last_session = behind.session();
  (void)behind.view_received(view, now_);
  const protocol::StepTag tag{SessionId(11), behind.session(), view.epoch, view.step, view.attempt};
  out_ = behind.message_received(kA, protocol::Forward{tag, MicrobatchId(0), 1, false, {}}, now_);
  EXPECT_TRUE(all<protocol::RunOperation>().empty());
  EXPECT_TRUE(sent<protocol::Held>().empty());
}

TEST_F(StepFlaws, ALostForwardIsAskedForAndSentAgain) {
  const PeerId successor = passes_on();
  const std::uint32_t n = sent<protocol::Forward>().front().second.n;
  wait(kAskAfter);
  ASSERT_EQ(sent<protocol::Ask>().size(), 1u);
  hear(successor, protocol::Free{from(successor), MicrobatchId(0), n});
  ASSERT_EQ(sent<protocol::Forward>().size(), 1u);
  EXPECT_EQ(sent<protocol::Forward>().front().second.n, n);
}

TEST_F(StepFlaws, ALostGradientIsAskedForAndAnsweredFromCustody) {
  const PeerId successor = passes_on();
  hear(successor, protocol::Backward{from(successor), MicrobatchId(0), {}});
  ASSERT_EQ(sent<protocol::Backward>().size(), 1u);
  hear(kA, protocol::Ask{from(kA), MicrobatchId(0), 1});
  EXPECT_EQ(sent<protocol::Backward>().size(), 1u);
  EXPECT_TRUE(all<protocol::RunOperation>().empty());
}

TEST_F(StepFlaws, TheJournalIsKeptForTheNeighbourWithTheOldestCheckpoint) {
  view_.checkpointed = {3, 9, 2};
  see();
  ASSERT_EQ(all<protocol::RunTrim>().size(), 1u);
  EXPECT_EQ(all<protocol::RunTrim>().front().version, 2u);
}

TEST_F(StepFlaws, TwoThatCannotReachEachOtherSaySo) {
  out_.clear();
  take(worker_.peer_lost(kC, now_));
  wait(seconds(3));
  const auto reports = sent<protocol::Report>();
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back().second.unreachable, std::vector<SessionId>({SessionId(15)}));
}

// Or the first report on it would have it expelled, and so the next, before anybody could answer.
TEST_F(StepFlaws, ANewLifeOfAPeerIsNotAccusedOfWhatTheLastOneDid) {
  take(worker_.peer_lost(kC, now_));
  wait(seconds(3));
  expel(kC);
  view_.live.push_back({kC, SessionId(99), StageId(2), ReplicaId(0), {}, {}});
  ++view_.epoch.value;
  see();
  wait(seconds(1));
  ASSERT_FALSE(sent<protocol::Report>().empty());
  EXPECT_TRUE(sent<protocol::Report>().back().second.unreachable.empty());
  wait(seconds(1));
  EXPECT_EQ(sent<protocol::Report>().back().second.unreachable, std::vector<SessionId>({SessionId(99)}));
}

}  // namespace
}  // namespace isthmus::router
