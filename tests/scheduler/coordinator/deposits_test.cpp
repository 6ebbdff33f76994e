// How checkpoints get into the vault: whom they are asked of, in which order, and what becomes of it when somebody is
// lost or silent.
#include "scheduler/coordinator/deposits.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/counter_random.h"
#include "base/times.h"
#include "deposit_world.h"

namespace isthmus::coordinator {
namespace {

// What is asked of a worker at once, from this piece on.
std::vector<std::uint32_t> ahead_of(std::uint32_t piece) {
  std::vector<std::uint32_t> indices(Deposits::kAhead);
  std::ranges::generate(indices, [&] { return piece++; });
  return indices;
}

TEST_F(Deposit, TakesTheNewestVersionThatAllStagesHaveOnAllReplicas) {
  DepositWorld world(3, 3, true);
  std::uint32_t peer = 0;
  for (const auto& [stage, newest] : {std::pair(0u, 30u), {0u, 20u}, {1u, 40u}, {1u, 40u}, {2u, 30u}})
    world.workers[PeerId(++peer)] = {StageId(stage), newest};
  world.look();
  world.settle();
  for (const std::uint32_t stage : {0u, 1u, 2u}) EXPECT_TRUE(world.has(stage, 20)) << stage;
  EXPECT_EQ(world.stored.size(), 3u);
  EXPECT_EQ(world.vaulted.size(), 3u);
  EXPECT_TRUE(world.deposits.settled(20));
  EXPECT_FALSE(world.deposits.settled(30));
  EXPECT_EQ(world.deposits.next_due(), kNever);
  EXPECT_EQ(world.deposits.progress(), "");
  // A replica that has none yet holds it up, and so does a stage of nobody.
  world.workers[PeerId(2)].newest = 0;
  world.look();
  EXPECT_TRUE(world.asked.empty());
  world.workers[PeerId(2)].newest = 30;
  world.workers.erase(PeerId(5));
  world.look();
  EXPECT_TRUE(world.asked.empty());
  world.workers[PeerId(5)] = {StageId(2), 30};
  world.look();
  world.settle();
  EXPECT_EQ(world.vaulted.size(), 6u);
  EXPECT_TRUE(world.troubles.empty());
}

TEST_F(Deposit, LeavesOutWhatIsThereFromBefore) {
  world_.deposits.has_vaulted(StageId(0), 20);
  world_.look();
  EXPECT_TRUE(world_.asked.empty());
  EXPECT_TRUE(world_.deposits.settled(20));
}

TEST_F(Deposit, AsksAFewPiecesAheadAndGivesTheVaultWholeBlocks) {
  world_.look();
  EXPECT_EQ(world_.asked_of(kOne), Indices({kFacts}));
  world_.answer();
  ASSERT_NE(job<BeginDeposit>(), nullptr);
  EXPECT_TRUE(world_.asked.empty());
  world_.work();
  for (std::uint32_t next = 0; next < kAll; ++next) {
    Indices ahead;
    for (std::uint32_t i = next; i < std::min(next + Deposits::kAhead, kAll); ++i) ahead.push_back(i);
    EXPECT_EQ(world_.asked_of(kOne), ahead);
    world_.answer();
    EXPECT_EQ(job<KeepPieces>() != nullptr, next % kBlock == kBlock - 1 || next == kAll - 1) << next;
    if (!world_.jobs.empty()) world_.work();
  }
  EXPECT_EQ(world_.asked_of(kTwo), Indices({kFacts}));
  EXPECT_NE(world_.deposits.progress().find("9 of 10 MB here, 1 of 1 stages"), std::string::npos)
      << world_.deposits.progress();
  world_.settle();
  EXPECT_TRUE(world_.has(0, 20));
  EXPECT_EQ(world_.deposits.pieces_received(), kAll);
}

TEST_F(Deposit, FillsNoMemoryWhileTheVaultIsSlow) {
  DepositWorld world(1, 3 * kAll, true);
  world.workers[kOne] = {StageId(0), 20};
  world.look();
  world.answer();
  world.work();
  while (!world.asked.empty()) {
    world.answer();
    EXPECT_LE(world.held(), Deposits::kPiecesKept + Deposits::kAhead);
  }
  ASSERT_EQ(world.jobs.size(), 1u);
  EXPECT_EQ(std::get<KeepPieces>(world.jobs.front()).pieces.size(), Deposits::kPiecesKept);
  EXPECT_GE(world.held(), Deposits::kPiecesKept);
  // It is the vault that is silent, not the worker.
  EXPECT_EQ(world.deposits.next_due(), kNever);
  world.now += seconds(1000);
  world.look();
  EXPECT_TRUE(world.asked.empty());
  // Pieces that nobody asked for would fill it as well.
  for (auto i = static_cast<std::uint32_t>(world.deposits.pieces_received()); i < 3 * kAll; ++i)
    world.receive(kOne, world.piece_of(kOne, 20, i));
  EXPECT_LE(world.held(), Deposits::kPiecesKept + Deposits::kAhead);
  world.settle();
  EXPECT_TRUE(world.has(0, 20));
}

TEST_F(Deposit, AsksAFewStagesAtOnce) {
  DepositWorld world(6, 3, true);
  for (std::uint32_t s = 0; s < 6; ++s) world.workers[PeerId(s + 1)] = {StageId(s), 20};
  world.look();
  EXPECT_EQ(world.asked.size(), Deposits::kStagesAtOnce);
  // Those of the fourth stage first: it makes room for the fifth.
  std::ranges::stable_partition(world.asked, [](const AskForPiece& ask) { return ask.from == PeerId(4); });
  while (world.vaulted.empty()) {
    EXPECT_TRUE(world.asked_of(PeerId(5)).empty());
    if (!world.jobs.empty())
      world.work();
    else
      world.answer();
    world.look();
    std::ranges::stable_partition(world.asked, [](const AskForPiece& ask) { return ask.from == PeerId(4); });
  }
  EXPECT_EQ(world.asked_of(PeerId(5)), Indices({kFacts}));
  EXPECT_TRUE(world.asked_of(PeerId(6)).empty());
  world.settle();
  EXPECT_EQ(world.vaulted.size(), 6u);
}

TEST_F(Deposit, BeginsTheNextVersionOnceTheFirstIsOverEverywhere) {
  DepositWorld world(2, 3, true);
  for (std::uint32_t s = 0; s < 2; ++s) world.workers[PeerId(s + 1)] = {StageId(s), 20};
  world.look();
  for (auto& [peer, worker] : world.workers) worker.newest = 40;
  for (int turns = 0; world.vaulted.size() < 2; ++turns) {
    ASSERT_LT(turns, 100);
    for (const auto& ask : world.asked) EXPECT_EQ(ask.request.version, 20u);
    world.asked.empty() ? world.work() : world.answer();
    if (world.vaulted.size() < 2) world.look();
  }
  EXPECT_TRUE(world.deposits.settled(20));
  world.look();
  EXPECT_FALSE(world.deposits.settled(20));  // another one is on its way
  world.settle();
  EXPECT_TRUE(world.has(0, 40) && world.has(1, 40));
}

// ------------------------------------------------------------------------------------- who is lost, or silent

TEST_F(Deposit, GoesOnAtTheSamePieceOfASiblingWhenOneFallsSilent) {
  get(kHalf);
  world_.asked.clear();  // the answers do not come
  EXPECT_EQ(world_.deposits.next_due(), world_.now + seconds(10));
  world_.wait(seconds(9.9));
  EXPECT_TRUE(world_.asked.empty());
  world_.wait(seconds(0.1));
  EXPECT_EQ(world_.asked_of(kTwo), ahead_of(kHalf));
  EXPECT_TRUE(world_.asked_of(kOne).empty());
  world_.receive(kOne, world_.piece_of(kOne, 20, kHalf));  // late
  EXPECT_EQ(world_.deposits.pieces_received(), kHalf);
  world_.settle();
  EXPECT_TRUE(world_.has(0, 20));
  EXPECT_EQ(world_.deposits.pieces_received(), kAll);
}

TEST_F(Deposit, GoesOnOfASiblingAtOnceWhenOneIsLost) {
  get(kHalf);
  world_.asked.clear();
  world_.workers.erase(kOne);
  world_.look();
  EXPECT_EQ(world_.asked_of(kTwo).front(), kHalf);
  // And waits for whoever comes when that one is lost, too.
  world_.workers.erase(kTwo);
  world_.look();
  world_.asked.clear();
  EXPECT_EQ(world_.deposits.next_due(), kNever);
  world_.wait(seconds(100));
  EXPECT_TRUE(world_.asked.empty());
  EXPECT_FALSE(world_.deposits.settled(20));
  world_.workers[kOne] = {StageId(0), 20};
  world_.look();
  EXPECT_EQ(world_.asked_of(kOne).front(), kHalf);
  world_.settle();
  EXPECT_TRUE(world_.has(0, 20));
  EXPECT_EQ(world_.deposits.pieces_received(), kAll);
}

// The vault goes on with what it has; nobody is there to be asked.
TEST_F(Deposit, AsksNobodyWhenTheVaultIsReadyAndAllAreGone) {
  world_.look();
  answer(1);
  world_.work();
  answer(kBlock);
  world_.workers.clear();
  world_.look();
  world_.asked.clear();
  world_.work();
  EXPECT_TRUE(world_.asked.empty());
  world_.workers[kTwo] = {StageId(0), 20};
  world_.look();
  world_.settle();
  EXPECT_TRUE(world_.has(0, 20));
}

TEST_F(Deposit, AsksTheOnlyOneAgain) {
  world_.workers.erase(kTwo);
  get(5);
  world_.asked.clear();
  world_.wait(seconds(10));
  EXPECT_EQ(world_.asked_of(kOne), ahead_of(5));
}

TEST_F(Deposit, StartsOverWithASiblingThatHasAnotherCheckpoint) {
  world_.workers[kTwo].bits = "b";
  get(kHalf);
  world_.asked.clear();
  world_.workers.erase(kOne);
  world_.look();
  answer(1);
  ASSERT_NE(job<BeginDeposit>(), nullptr);
  EXPECT_EQ(job<BeginDeposit>()->facts, world_.facts_of(kTwo, 20));
  world_.asked.clear();
  world_.work();
  EXPECT_EQ(world_.asked_of(kTwo).front(), 0u);
  world_.settle();
  EXPECT_TRUE(world_.has(0, 20, "b"));
  EXPECT_FALSE(world_.has(0, 20, "a"));
}

// What the vault says of the first one's pieces is not taken for the other's.
TEST_F(Deposit, StartsOverAlsoWhileTheVaultKeepsPiecesOfTheFirst) {
  for (const Kind how : {Kind::kWorks, Kind::kFails}) {
    DepositWorld world(1, kAll, true);
    world.workers[kOne] = {StageId(0), 20};
    world.workers[kTwo] = {StageId(0), 20, "b"};
    world.look();
    world.answer();
    world.work();
    for (int i = 0; i < static_cast<int>(kBlock) + 2; ++i) world.answer();
    ASSERT_EQ(world.jobs.size(), 1u);
    world.asked.clear();
    world.workers.erase(kOne);
    world.look();
    world.answer();
    world.asked.clear();
    ASSERT_EQ(world.jobs.size(), 2u);
    world.work(how);
    EXPECT_TRUE(world.asked.empty());
    world.work();
    EXPECT_EQ(world.asked_of(kTwo).front(), 0u);
    world.settle();
    EXPECT_TRUE(world.has(0, 20, "b"));
  }
}

// It would go on for ever.
TEST_F(Deposit, AsksNobodyAgainWhoSaysNowThisNowThat) {
  get(3);
  world_.workers[kOne].bits = "c";
  world_.asked.erase(world_.asked.begin() + 1, world_.asked.end());
  answer(1);
  EXPECT_TRUE(world_.jobs.empty());
  EXPECT_EQ(world_.asked_of(kTwo).front(), 3u);
  world_.settle();
  EXPECT_TRUE(world_.has(0, 20));
}

// -------------------------------------------------------------------------------------------------- for long

TEST_F(Deposit, NeverTurnsInVainForWorkersThatSayNothing) {
  world_.look();
  const Time end = world_.now + seconds(1000);
  int turns = 0;
  while (world_.now < end) {
    ASSERT_LT(++turns, 110);
    const Time due = world_.deposits.next_due();
    ASSERT_GT(due, world_.now);
    world_.wait(due - world_.now);
  }
  EXPECT_EQ(world_.asked_of(kOne).size(), world_.asked_of(kTwo).size() + 1);  // in turn
}

class RandomDeposits {
 public:
  explicit RandomDeposits(std::uint64_t seed)
      : random_(seed, "deposits"),
        world_(kStages, static_cast<std::uint32_t>(1 + below(2 * Deposits::kPiecesKept)), seed % 2 == 0) {
    std::uint32_t peer = 0;
    for (std::uint32_t s = 0; s < kStages; ++s)
      for (std::uint32_t r = 0; r < 3; ++r) {
        DepositWorld::Worker& worker = world_.workers[PeerId(++peer)] = {StageId(s), 20};
        if (r == 1) steady_.insert(PeerId(peer));
        // Where a sibling's word counts, a liar has a veto.
        else if (seed % 2 == 1 && below(2) == 0)
          lie(worker);
      }
    all_ = world_.workers;
  }
  void play() {
    for (int turns = 0; turns < 20000 && !world_.deposits.settled(20); ++turns) turn(true);
    world_.workers = all_;
    for (int turns = 0; turns < 20000 && !world_.deposits.settled(20); ++turns) turn(false);
    EXPECT_TRUE(world_.deposits.settled(20));
    for (std::uint32_t s = 0; s < kStages; ++s) EXPECT_TRUE(world_.has(s, 20)) << s;
    EXPECT_EQ(world_.vaulted.size(), kStages);
  }

 private:
  static constexpr std::uint32_t kStages = 5;
  std::uint64_t below(std::uint64_t limit) { return random_.below(limit, n_++); }
  void lie(DepositWorld::Worker& worker) {
    const std::uint64_t most = Deposits::bytes_max(world_.plan, worker.stage);
    switch (below(3)) {
      case 0:
        worker.bytes = most + 1 + below(UINT64_MAX - most - 1);
        break;
      case 1:
        worker.lacks = {20};
        break;
      default:
        // Less or more than there is: the vault sees that the digest is not of that.
        worker.bytes = 1 + below(most);
        worker.bits = "x";
        worker.lies = true;
    }
  }
  void turn(bool wild) {
    const std::uint64_t what = below(wild ? 12 : 9);
    if (what < 6 && !world_.asked.empty()) {
      world_.answer();
    } else if (what < 8 && !world_.jobs.empty()) {
      world_.work(wild && below(8) == 0 ? DepositWorld::Vault::kFails : DepositWorld::Vault::kWorks);
    } else if (what == 8) {
      const Time due = world_.deposits.next_due();
      world_.now += seconds(0.01 * static_cast<double>(below(100)));
      if (world_.asked.empty() && world_.jobs.empty() && due != kNever) world_.now = std::max(world_.now, due);
    } else if (what == 9) {
      for (std::uint64_t lost = below(4); lost > 0 && !world_.asked.empty(); --lost)
        world_.asked.erase(world_.asked.begin() + static_cast<std::ptrdiff_t>(below(world_.asked.size())));
    } else if (what == 10) {
      const PeerId peer(static_cast<std::uint32_t>(1 + below(all_.size())));
      if (below(2) == 0)
        world_.workers.insert(*all_.find(peer));
      else if (!steady_.contains(peer))
        world_.workers.erase(peer);
    }
    world_.look();
    EXPECT_LE(world_.held(), Deposits::kStagesAtOnce * (Deposits::kPiecesKept + Deposits::kAhead));
  }

  const CounterRandom random_;
  std::uint64_t n_ = 0;
  DepositWorld world_;
  std::map<PeerId, DepositWorld::Worker> all_;
  std::set<PeerId> steady_;
};

TEST(Deposits, BringsAllThatHonestReplicasHoldIntoTheVaultWhateverHappens) {
  for (std::uint64_t seed = 0; seed < times(100); ++seed) {
    SCOPED_TRACE(seed);
    RandomDeposits(seed).play();
    if (::testing::Test::HasFailure()) break;
  }
}

}  // namespace
}  // namespace isthmus::coordinator
