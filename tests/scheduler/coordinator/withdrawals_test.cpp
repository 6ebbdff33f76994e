// Who gets which piece of a checkpoint out of the vault, and how fast.
#include "scheduler/coordinator/withdrawals.h"

#include <gtest/gtest.h>

#include "seated.h"

namespace isthmus::coordinator {
namespace {

constexpr PeerId kFirst(1), kSecond(2), kMember(3), kOfAnother(4), kWithoutASeat(5), kNobody(99);

protocol::Plan three_emptied_stages() {
  protocol::Plan plan;
  for (std::uint32_t s = 0; s < 3; ++s) plan.stages.push_back({s, s + 1, 2, 4});
  plan.steps = 100;
  plan.microbatches = 1;
  return plan;
}

// Stage 0 has two seats and no member, stage 1 a member, stage 2 a seat and no member.
class Withdrawal : public ::testing::Test {
 protected:
  Withdrawal() {
    for (const auto& record : seating_log({{kFirst, StageId(0), ReplicaId(0), {}},
                                           {kSecond, StageId(0), ReplicaId(1), {}},
                                           {kMember, StageId(1), ReplicaId(0), {}},
                                           {kOfAnother, StageId(2), ReplicaId(0), {}}}))
      decisions_.apply(record);
    decisions_.apply(EnrolRecord{kWithoutASeat, {}, {}, "", {}, {}});
    decisions_.apply(InitRecord{0});
    decisions_.apply(AdmitRecord{{kMember, SessionId(30), StageId(1), ReplicaId(0), {}, {}}, 0});
    for (const auto& [stage, version] : {std::pair(0u, 40u), {1u, 40u}, {2u, 20u}})
      decisions_.apply(CheckpointRecord{StageId(stage), version});
  }
  static protocol::CheckpointRequest piece(std::uint32_t index, std::uint64_t version = 40) {
    return {version, 0, index};
  }
  bool ask(PeerId from, std::uint32_t index, std::uint64_t version = 40) {
    return withdrawals_.asked(decisions_, from, piece(index, version));
  }
  std::vector<Withdrawals::Piece> next() { return withdrawals_.next(decisions_, most_, now_); }
  // All that waits, however long it takes.
  std::vector<Withdrawals::Piece> all() {
    std::vector<Withdrawals::Piece> pieces;
    while (withdrawals_.next_due() != kNever) {
      now_ = std::max(now_, withdrawals_.next_due());
      for (auto& piece : next()) pieces.push_back(piece);
    }
    return pieces;
  }
  static Withdrawals::Piece of(PeerId to, std::uint32_t index) { return {to, StageId(0), piece(index)}; }
  using Pieces = std::vector<Withdrawals::Piece>;

  Decisions decisions_{three_emptied_stages()};
  std::size_t most_ = 1000;
  Withdrawals withdrawals_{protocol::kPieceBytes * 100.0};  // ten milliseconds each
  Time now_ = seconds(10);
};

TEST_F(Withdrawal, GivesWhoeverHasASeatAtAnEmptyStageWhatTheVaultHasOfIt) {
  EXPECT_EQ(withdrawals_.next_due(), kNever);
  EXPECT_TRUE(ask(kFirst, protocol::kFactsOnly));
  EXPECT_TRUE(ask(kFirst, 3));
  EXPECT_TRUE(ask(kFirst, 3));  // waits already
  EXPECT_TRUE(ask(kOfAnother, 0, 20));
  EXPECT_LE(withdrawals_.next_due(), now_);
  EXPECT_EQ(all(), Pieces({of(kFirst, protocol::kFactsOnly), {kOfAnother, StageId(2), piece(0, 20)}, of(kFirst, 3)}));
  EXPECT_TRUE(ask(kFirst, 3));  // lost on its way
  EXPECT_EQ(all(), Pieces({of(kFirst, 3)}));
}

TEST_F(Withdrawal, GivesNobodyElseAnything) {
  for (const PeerId peer : {kMember, kOfAnother, kWithoutASeat, kNobody, kCoordinator})
    EXPECT_FALSE(ask(peer, 0)) << peer.value;
  for (const std::uint64_t version : {0u, 20u, 39u, 41u}) EXPECT_FALSE(ask(kFirst, 0, version)) << version;
  EXPECT_EQ(withdrawals_.next_due(), kNever);
  // Nothing is in the vault.
  Decisions fresh(three_emptied_stages());
  for (const auto& record : seating_log({{kFirst, StageId(0), ReplicaId(0), {}}})) fresh.apply(record);
  fresh.apply(InitRecord{0});
  EXPECT_FALSE(withdrawals_.asked(fresh, kFirst, piece(0, 0)));
}

// Between the question and the answer.
TEST_F(Withdrawal, GivesNothingToWhoMayNotHaveItAnyMore) {
  const Decisions before = decisions_;
  const auto given_after = [&](const LogRecord& record) {
    decisions_ = before;
    EXPECT_TRUE(ask(kFirst, 0));
    decisions_.apply(record);
    const std::size_t given = next().size();
    EXPECT_EQ(withdrawals_.next_due(), kNever);
    now_ += seconds(1);
    return given;
  };
  EXPECT_EQ(given_after(UnseatRecord{kFirst, "was away"}), 0u);
  EXPECT_EQ(given_after(RevokeRecord{kFirst, "", false}), 0u);
  EXPECT_EQ(given_after(MoveRecord{kFirst, {StageId(2), ReplicaId(1)}, "asked to"}), 0u);
  EXPECT_EQ(given_after(AdmitRecord{{kSecond, SessionId(20), StageId(0), ReplicaId(1), {}, {}}, 40}), 0u);
  EXPECT_EQ(given_after(CheckpointRecord{StageId(0), 60}), 0u);
  EXPECT_EQ(given_after(RollbackRecord{20, "", {}}), 0u);
  EXPECT_EQ(given_after(CheckpointRecord{StageId(1), 60}), 1u);
  // It costs the others no time.
  decisions_ = before;
  EXPECT_TRUE(ask(kFirst, 0) && ask(kSecond, 0) && ask(kSecond, 1));
  decisions_.apply(UnseatRecord{kFirst, "was away"});
  EXPECT_EQ(next(), Pieces({of(kSecond, 0), of(kSecond, 1)}));
}

// A peer that asks without end holds up the others by one answer each.
TEST_F(Withdrawal, FillsTheUplinkAndNoMoreAndLetsAllTakeTurns) {
  for (std::uint32_t i = 0; i < 10; ++i) EXPECT_TRUE(ask(kFirst, i));
  EXPECT_TRUE(ask(kSecond, 7));
  EXPECT_EQ(next(), Pieces({of(kFirst, 0), of(kSecond, 7)}));  // of 20 ms that may leave at once
  EXPECT_EQ(next(), Pieces());
  EXPECT_TRUE(ask(kSecond, 8));
  EXPECT_EQ(withdrawals_.next_due(), now_ + std::chrono::milliseconds(20));
  now_ += std::chrono::milliseconds(10);
  EXPECT_EQ(next(), Pieces({of(kFirst, 1)}));
  now_ += std::chrono::milliseconds(10);
  EXPECT_EQ(next(), Pieces({of(kSecond, 8)}));
  const Time began = now_;
  EXPECT_EQ(all().size(), 8u);
  EXPECT_EQ(now_ - began, std::chrono::milliseconds(80));
  // What was not used is not saved up.
  now_ += seconds(100);
  for (std::uint32_t i = 0; i < 10; ++i) EXPECT_TRUE(ask(kFirst, i));
  EXPECT_EQ(next().size(), 2u);
}

// To say that the vault has not got it would end a fetch that is only slow.
TEST_F(Withdrawal, LetsSoManyWaitAndIsSilentAboutTheRest) {
  const auto most = static_cast<std::uint32_t>(Withdrawals::kWaitingMax);
  for (std::uint32_t i = 0; i < 3 * most; ++i) EXPECT_TRUE(ask(kFirst, i));
  EXPECT_TRUE(ask(kSecond, 0));
  const Pieces pieces = all();
  ASSERT_EQ(pieces.size(), most + 1);
  EXPECT_EQ(pieces.back(), of(kFirst, most - 1));
}

TEST_F(Withdrawal, ForgetsWhatWasAskedOverALostConnection) {
  EXPECT_TRUE(ask(kFirst, 0) && ask(kSecond, 0));
  withdrawals_.forget(kFirst);
  EXPECT_EQ(all(), Pieces({of(kSecond, 0)}));
  EXPECT_TRUE(ask(kFirst, 0));
  EXPECT_EQ(all().size(), 1u);
}

}  // namespace
}  // namespace isthmus::coordinator
