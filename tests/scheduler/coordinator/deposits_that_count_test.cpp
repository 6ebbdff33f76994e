// What of all that comes counts, and what the vault says to it.
#include <gtest/gtest.h>

#include "deposit_world.h"

namespace isthmus::coordinator {
namespace {

TEST_F(Deposit, CountsOnceASiblingHasConfirmedIt) {
  get(kAll);
  EXPECT_TRUE(world_.jobs.empty());
  EXPECT_EQ(world_.asked_of(kTwo), Indices({kFacts}));
  answer(1);
  ASSERT_NE(job<FinishDeposit>(), nullptr);
  EXPECT_EQ(job<FinishDeposit>()->facts, world_.facts_of(kOne, 20));
  EXPECT_TRUE(world_.vaulted.empty());
  world_.work();
  EXPECT_EQ(world_.vaulted.size(), 1u);
}

TEST_F(Deposit, NeedsNoSiblingsWordWhereTheyDiffer) {
  DepositWorld world(1, 3, false);
  world.workers[kOne] = {StageId(0), 20};
  world.workers[kTwo] = {StageId(0), 20, "b"};
  world.look();
  world.settle();
  EXPECT_TRUE(world.has(0, 20));
}

TEST_F(Deposit, TakesNeitherOfTwoThatDifferAndTriesTheNextVersion) {
  world_.workers[kTwo].bits = "b";
  world_.look();
  world_.settle();
  EXPECT_FALSE(world_.has(0, 20) || world_.has(0, 20, "b"));
  ASSERT_EQ(world_.troubles.size(), 1u);
  EXPECT_NE(world_.troubles[0].find("workers 1 and 2 have different checkpoints"), std::string::npos);
  EXPECT_TRUE(world_.deposits.settled(20));
  world_.workers[kTwo] = {StageId(0), 40};
  world_.workers[kOne].newest = 40;
  world_.look();
  world_.settle();
  EXPECT_TRUE(world_.has(0, 40));
}

TEST_F(Deposit, IsTakenThoughNoSiblingCanConfirmIt) {
  world_.workers[kThree] = {StageId(0), 20};
  world_.workers[kTwo].lacks = {20};
  get(kAll);
  answer(1);
  EXPECT_TRUE(world_.jobs.empty());
  EXPECT_EQ(world_.asked_of(kThree), Indices({kFacts}));
  world_.asked.clear();  // it says nothing
  world_.wait(seconds(9));
  EXPECT_TRUE(world_.jobs.empty());
  EXPECT_EQ(world_.deposits.next_due(), world_.now + seconds(1));
  world_.wait(seconds(1));
  ASSERT_NE(job<FinishDeposit>(), nullptr);
  // Who said nothing may still give it.
  world_.work(Kind::kFails);
  world_.workers.erase(kOne);
  world_.wait(seconds(10));
  EXPECT_EQ(world_.asked_of(kThree), Indices({kFacts}));
}

TEST_F(Deposit, DoesNotWaitForASiblingThatIsLost) {
  get(kAll);
  world_.asked.clear();
  world_.workers.erase(kTwo);
  world_.look();
  EXPECT_NE(job<FinishDeposit>(), nullptr);
}

TEST_F(Deposit, RefusesFactsThatCannotBe) {
  const std::uint64_t most = Deposits::bytes_max(world_.plan, StageId(0));
  EXPECT_GE(most, 2 * kAll * protocol::kPieceBytes);
  const auto refused = [&](auto&& change) {
    DepositWorld world(1, kAll, true);
    world.workers[kOne] = {StageId(0), 20};
    world.workers[kTwo] = {StageId(0), 20};
    world.look();
    protocol::CheckpointPiece piece = world.piece_of(kOne, 20, kFacts);
    change(piece.facts);
    world.asked.clear();
    world.receive(kOne, piece);
    return world.jobs.empty() && world.asked_of(kTwo) == Indices({kFacts});
  };
  using Facts = CheckpointFacts;
  EXPECT_TRUE(refused([](Facts& facts) { facts.bytes = 0; }));
  EXPECT_TRUE(refused([&](Facts& facts) { facts.bytes = most + 1; }));
  EXPECT_TRUE(refused([](Facts& facts) { facts.bytes = UINT64_MAX; }));
  EXPECT_TRUE(refused([](Facts& facts) { facts.timeline = 1; }));
  EXPECT_TRUE(refused([](Facts& facts) { facts.digest = ""; }));
  EXPECT_FALSE(refused([&](Facts& facts) { facts.bytes = most; }));
}

TEST_F(Deposit, IsNotChangedByWhatDoesNotBelongToIt) {
  world_.workers[PeerId(4)] = {StageId(0), 20};
  get(3);
  const auto asked = world_.asked.size();
  const auto pass = [&](PeerId from, std::uint64_t version, std::uint32_t index) {
    world_.receive(from, world_.piece_of(kOne, version, index));
    EXPECT_EQ(world_.deposits.pieces_received(), 3u);
    EXPECT_EQ(world_.asked.size(), asked);
    EXPECT_TRUE(world_.jobs.empty());
  };
  pass(kOne, 10, 3);       // another version
  pass(kOne, 20, 2);       // here already
  pass(kOne, 20, 4);       // out of order
  pass(kOne, 20, kFacts);  // known
  pass(kTwo, 20, 3);       // was not asked
  pass(kStranger, 20, 3);
  protocol::CheckpointPiece empty = world_.piece_of(kOne, 20, 3);
  empty.tensor.values = nullptr;
  world_.receive(kOne, empty);
  EXPECT_EQ(world_.deposits.pieces_received(), 3u);
  world_.settle();
  EXPECT_TRUE(world_.has(0, 20));
}

// ------------------------------------------------------------------------------------------------- the vault

TEST_F(Deposit, RestsWhenTheVaultFailsAndGoesOnWhereItWas) {
  get(kHalf);
  for (const std::uint64_t pieces : {kHalf, 2 * kBlock}) {
    while (world_.jobs.empty()) answer(1);
    world_.work(Kind::kFails);
    world_.asked.clear();
    EXPECT_EQ(world_.troubles.back(), "the disk is full");
    EXPECT_EQ(world_.deposits.next_due(), world_.now + seconds(10));
    world_.wait(seconds(9.9));
    EXPECT_TRUE(world_.asked.empty());
    world_.wait(seconds(0.1));
    EXPECT_EQ(world_.asked_of(kOne), Indices({kFacts}));
    answer(1);
    world_.work();
    EXPECT_EQ(world_.asked_of(kOne).front(), pieces / kBlock * kBlock);
    while (world_.jobs.empty()) answer(1);
    world_.work();
    if (pieces == kHalf) continue;
    world_.settle();
  }
  EXPECT_TRUE(world_.has(0, 20));
  EXPECT_FALSE(world_.deposits.settled(40));
}

TEST_F(Deposit, IsConfirmedAtOnceIfTheVaultHasAllOfIt) {
  get(kAll);
  answer(1);
  world_.work(Kind::kFails);  // all was there but for its end
  world_.wait(seconds(10));
  answer(1);
  world_.work();
  EXPECT_EQ(world_.asked_of(kOne), Indices());
  EXPECT_EQ(world_.asked_of(kTwo), Indices({kFacts}));
  world_.settle();
  EXPECT_TRUE(world_.has(0, 20));
  EXPECT_EQ(world_.deposits.pieces_received(), kAll);
}

TEST_F(Deposit, AsksAnotherWhenWhatCameIsNotWhatWasSaid) {
  world_.workers[kOne].lies = true;
  world_.look();
  world_.settle();
  EXPECT_EQ(world_.troubles, std::vector<std::string>({"it is not good"}));
  EXPECT_TRUE(world_.has(0, 20));
  EXPECT_EQ(world_.deposits.pieces_received(), 2 * kAll);
}

// Of two that gave a part each, any may be to blame.
TEST_F(Deposit, BlamesOnlyWhoGaveAllOfIt) {
  world_.workers[kOne].lies = true;
  get(kHalf);
  world_.asked.clear();
  world_.wait(seconds(10));  // the second goes on
  world_.settle();           // and afterwards the liar gives all of it, and then the second
  EXPECT_EQ(world_.troubles.size(), 2u);
  EXPECT_TRUE(world_.has(0, 20));
}

TEST_F(Deposit, IsOverWhenNobodyIsLeftWhoCanGiveIt) {
  world_.workers[kOne].lies = true;
  world_.workers[kTwo].lacks = {20};
  world_.look();
  world_.settle();
  EXPECT_EQ(world_.troubles.size(), 1u);
  EXPECT_TRUE(world_.deposits.settled(20));
  EXPECT_TRUE(world_.vaulted.empty());
  EXPECT_EQ(world_.deposits.next_due(), kNever);
}

TEST_F(Deposit, ForgetsWhatIsOfAPastThatDidNotHappen) {
  world_.look();
  world_.settle();
  EXPECT_EQ(world_.vaulted.size(), 1u);
  for (auto& [peer, worker] : world_.workers) worker.newest = 40;
  get(60);
  world_.deposits.went_back(10, 1);
  world_.timeline = 1;
  world_.asked.clear();
  EXPECT_EQ(world_.deposits.progress(), "");
  for (auto& [peer, worker] : world_.workers) worker.newest = 20;
  world_.look();  // 20 again, of the new timeline
  world_.settle();
  EXPECT_TRUE(world_.has(0, 20));
  EXPECT_EQ(world_.vaulted.size(), 2u);
}

TEST_F(Deposit, KeepsWhatIsOlderThanWhereTheRunWentBackTo) {
  world_.look();
  world_.settle();
  world_.deposits.went_back(20, 1);
  world_.timeline = 1;
  world_.look();
  EXPECT_TRUE(world_.asked.empty());
  EXPECT_TRUE(world_.deposits.settled(20));
}

// The answers come when nobody waits for them any more, or for others.
TEST_F(Deposit, TakesLateAnswersOfTheVaultForNothingElse) {
  for (const Kind how : {Kind::kWorks, Kind::kFails})
    for (const std::uint32_t until : {0u, kBlock, kAll}) {
      DepositWorld world(1, kAll, true);
      world.workers[kOne] = {StageId(0), 20};
      world.look();
      world.answer();
      for (std::uint32_t i = 0; i < until; ++i) {
        while (!world.jobs.empty()) world.work();
        world.answer();
      }
      if (until == kAll) world.work();
      ASSERT_EQ(world.jobs.size(), 1u);
      world.deposits.went_back(10, 1);
      const auto late = std::exchange(world.jobs, {});
      world.timeline = 1;
      world.asked.clear();
      world.workers[kOne].newest = 10;
      world.deposits.has_vaulted(StageId(0), 10);
      world.look();
      EXPECT_TRUE(world.asked.empty());
      world.workers[kOne].newest = 20;
      // The old answer comes before anybody is asked, before he answers, or before the vault has begun again.
      if (until > 0) world.look();
      if (until == kAll) world.answer();
      const std::size_t asked = world.asked.size();
      world.jobs.push_front(late.front());
      world.work(how);
      EXPECT_EQ(world.asked.size(), asked);
      world.look();
      world.settle();
      EXPECT_TRUE(world.has(0, 20)) << until;
      EXPECT_EQ(world.vaulted.size(), 1u) << "what the run went back behind does not count";
    }
}

}  // namespace
}  // namespace isthmus::coordinator
