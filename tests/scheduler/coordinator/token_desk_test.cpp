// Who is given token ids, and how many at a time.
#include "scheduler/coordinator/token_desk.h"

#include <gtest/gtest.h>

#include "seated.h"

namespace isthmus::coordinator {
namespace {

constexpr PeerId kFirstHead(1), kSecondHead(2), kTailOne(3), kWaiting(4), kStranger(99);

protocol::Plan plan() {
  protocol::Plan plan;
  plan.stages = {{0, 1, 2, 8}, {1, 2, 1, 8}};
  plan.steps = 9;
  plan.microbatches = 4;
  plan.evaluation_microbatches = 2;
  plan.token_bytes = 1000;
  return plan;
}

class Desk : public ::testing::Test {
 protected:
  Desk() {
    for (const auto& record : seating_log({{kFirstHead, StageId(0), ReplicaId(0), {}},
                                           {kSecondHead, StageId(0), ReplicaId(1), {}},
                                           {kTailOne, StageId(1), ReplicaId(0), {}}}))
      decisions_.apply(record);
    decisions_.apply(EnrolRecord{kWaiting, {}, {}, "", {}, {}});
    decisions_.apply(InitRecord{0});
  }
  bool ask(PeerId from, std::uint64_t step, const std::vector<std::uint32_t>& microbatches) {
    protocol::TokenRequest request{StepId(step), DoneSet(8)};
    for (const auto m : microbatches) request.microbatches.insert(MicrobatchId(m));
    return desk_.asked(decisions_, from, request);
  }
  std::vector<TokenDesk::Answer> answers() { return desk_.answers(decisions_, now_); }
  static TokenDesk::Answer answer(PeerId to, std::uint64_t step, std::uint32_t m) {
    return {to, {StepId(step), MicrobatchId(m)}};
  }
  using Answers = std::vector<TokenDesk::Answer>;

  Decisions decisions_{plan()};
  TokenDesk desk_{plan(), 1e6};  // a millisecond each
  Time now_ = seconds(10);
};

TEST_F(Desk, AnswersAHeadInTheOrderOfItsQuestions) {
  EXPECT_EQ(desk_.next_due(), kNever);
  EXPECT_TRUE(ask(kFirstHead, 2, {1, 0}));
  EXPECT_TRUE(ask(kFirstHead, 1, {3}));
  EXPECT_TRUE(ask(kFirstHead, 0, {1}));
  EXPECT_TRUE(ask(kFirstHead, 2, {1}));  // waits already
  EXPECT_LE(desk_.next_due(), now_);
  EXPECT_EQ(answers(), Answers({answer(kFirstHead, 2, 0), answer(kFirstHead, 2, 1), answer(kFirstHead, 1, 3),
                                answer(kFirstHead, 0, 1)}));
  EXPECT_EQ(desk_.next_due(), kNever);
  EXPECT_TRUE(ask(kFirstHead, 2, {1}));  // lost on its way
  now_ += seconds(1);
  EXPECT_EQ(answers(), Answers({answer(kFirstHead, 2, 1)}));
}

// A key that is let in is not enough.
TEST_F(Desk, AnswersNobodyWhoHasNoSeatAtTheFirstStage) {
  for (const PeerId peer : {kTailOne, kWaiting, kStranger, kCoordinator}) EXPECT_FALSE(ask(peer, 1, {0})) << peer.value;
  EXPECT_FALSE(ask(kTailOne, 0, {0}));
  EXPECT_EQ(desk_.next_due(), kNever);
  // Nor who has lost it since it asked, or serves elsewhere by now.
  EXPECT_TRUE(ask(kFirstHead, 1, {0}));
  EXPECT_TRUE(ask(kSecondHead, 1, {1}));
  decisions_.apply(UnseatRecord{kFirstHead, "was away"});
  decisions_.apply(MoveRecord{kSecondHead, {StageId(1), ReplicaId(1)}, "asked to"});
  EXPECT_EQ(answers(), Answers());
  EXPECT_EQ(desk_.next_due(), kNever);
  EXPECT_FALSE(ask(kFirstHead, 1, {0}));
  EXPECT_FALSE(ask(kSecondHead, 1, {1}));
  decisions_.apply(MoveRecord{kTailOne, {StageId(0), ReplicaId(1)}, "asked to"});
  EXPECT_TRUE(ask(kTailOne, 1, {0}));
  decisions_.apply(RevokeRecord{kTailOne, "", false});
  EXPECT_FALSE(ask(kTailOne, 1, {0}));
}

TEST_F(Desk, RefusesSamplesThatTheRunDoesNotHaveAndStepsTooFarAhead) {
  EXPECT_FALSE(ask(kFirstHead, 1, {4}));
  EXPECT_FALSE(ask(kFirstHead, 0, {2}));
  EXPECT_FALSE(ask(kFirstHead, 4, {0}));  // step 1 runs
  EXPECT_FALSE(ask(kFirstHead, ~0ull, {0}));
  EXPECT_EQ(desk_.next_due(), kNever);
  EXPECT_FALSE(ask(kFirstHead, 3, {0, 7}));
  EXPECT_EQ(answers(), Answers({answer(kFirstHead, 3, 0)}));
}

TEST_F(Desk, LetsSoManyWaitAndNoMore) {
  // Steps that are over may be repeated, so a head may ask for any of them.
  protocol::Commit commit;
  for (std::uint64_t step = 1; step <= 7; ++step) {
    commit.step = StepId(step);
    decisions_.apply(CommitRecord{commit, {}, {}, {}, {}});
  }
  for (std::uint64_t step = 1; step <= 3; ++step) EXPECT_TRUE(ask(kFirstHead, step, {0, 1, 2, 3}));
  EXPECT_TRUE(ask(kFirstHead, 0, {0, 1}));
  for (std::uint64_t step = 4; step <= 9; ++step) EXPECT_FALSE(ask(kFirstHead, step, {0, 1, 2, 3}));
  std::size_t answered = 0;
  while (desk_.next_due() != kNever) {
    now_ = std::max(now_, desk_.next_due());
    answered += answers().size();
  }
  EXPECT_EQ(answered, protocol::samples_max(plan()));
}

// A peer that asks without end holds up the others by one answer each.
TEST_F(Desk, FillsTheUplinkAndNoMoreAndLetsAllTakeTurns) {
  for (std::uint64_t step = 1; step <= 3; ++step) EXPECT_TRUE(ask(kFirstHead, step, {0, 1, 2, 3}));
  EXPECT_TRUE(ask(kSecondHead, 1, {0, 1}));
  const auto first = answers();
  ASSERT_EQ(first.size(), 14u);  // of 20 ms that may leave at once
  EXPECT_EQ(first[0].to, kFirstHead);
  EXPECT_EQ(first[1].to, kSecondHead);
  EXPECT_EQ(first[2].to, kFirstHead);
  EXPECT_EQ(first[3].to, kSecondHead);
  EXPECT_TRUE(ask(kFirstHead, 1, {0, 1, 2, 3}));
  EXPECT_EQ(desk_.next_due(), now_ + std::chrono::milliseconds(14));
  now_ += std::chrono::milliseconds(13);
  EXPECT_EQ(answers(), Answers());
  now_ += std::chrono::milliseconds(1);
  EXPECT_EQ(answers().size(), 4u);
}

TEST_F(Desk, ForgetsWhatWasAskedOverALostConnection) {
  EXPECT_TRUE(ask(kFirstHead, 1, {0}));
  desk_.forget(kFirstHead);
  EXPECT_EQ(desk_.next_due(), kNever);
  EXPECT_TRUE(ask(kFirstHead, 1, {0}));
  EXPECT_EQ(answers().size(), 1u);
}

}  // namespace
}  // namespace isthmus::coordinator
