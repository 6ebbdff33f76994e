#include "scheduler/coordinator/rebalance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "base/counter_random.h"
#include "base/times.h"

namespace isthmus::coordinator {
namespace {

using Reason = ReplicaMove::Reason;

// Machines that serve stages and do what they are told: a mover fetches for 15 seconds.
struct Swarm {
  SwarmLoad load;
  std::vector<double> speeds;  // by peer - 1
  std::vector<Time> warm_at;
  double noise = 0;
  bool fetching_are_known = false;  // from an earlier stay
  CounterRandom random{7, "noise"};
  std::uint64_t drawn = 0;

  explicit Swarm(const std::vector<std::vector<double>>& stages, std::uint64_t state_bytes = 100'000'000) {
    load.microbatches = 1 << 16;
    for (std::uint32_t s = 0; s < stages.size(); ++s) {
      load.stages.push_back({1, state_bytes});
      for (const double speed : stages[s]) add(StageId(s), speed, Time{});
    }
  }
  static Swarm of(const std::vector<std::size_t>& counts) {
    std::vector<std::vector<double>> stages;
    for (const auto count : counts) stages.emplace_back(count, 1.0);
    return Swarm(stages);
  }

  PeerId add(StageId stage, double speed, Time warm) {
    speeds.push_back(speed);
    warm_at.push_back(warm);
    const PeerId peer(static_cast<std::uint32_t>(speeds.size()));
    load.replicas.push_back({peer, stage});
    return peer;
  }
  StageReplica& replica(PeerId peer) { return *std::ranges::find(load.replicas, peer, &StageReplica::peer); }
  void remove(PeerId peer) {
    std::erase_if(load.replicas, [&](const StageReplica& r) { return r.peer == peer; });
  }
  SwarmLoad seen(Time now) {
    for (auto& r : load.replicas) {
      r.warm = warm_at[r.peer.value - 1] <= now;
      const double work = load.stages[r.stage.value].work / speeds[r.peer.value - 1];
      r.service = r.warm || fetching_are_known ? seconds(work * (1 + noise * random.normal(drawn++))) : Duration{};
    }
    return load;
  }
  void carry_out(const ReplicaMove& move, Time now) {
    replica(move.peer).stage = move.to;
    warm_at[move.peer.value - 1] = now + seconds(15);
  }
  std::size_t warm(std::uint32_t stage, Time now) const {
    return static_cast<std::size_t>(std::ranges::count_if(load.replicas, [&](const StageReplica& r) {
      return r.stage.value == stage && warm_at[r.peer.value - 1] <= now;
    }));
  }
  std::vector<std::size_t> counts() const {
    std::vector<std::size_t> counts(load.stages.size());
    for (const auto& r : load.replicas) ++counts[r.stage.value];
    return counts;
  }
  // Of the slowest stage, microbatches per second.
  double throughput(Time now) const {
    std::vector<double> sums(load.stages.size(), 0);
    for (const auto& r : load.replicas)
      if (warm_at[r.peer.value - 1] <= now)
        sums[r.stage.value] += speeds[r.peer.value - 1] / load.stages[r.stage.value].work;
    return *std::ranges::min_element(sums);
  }
};

// Evaluates every ten seconds from `from` on and carries out what is decided.
std::vector<std::pair<Time, ReplicaMove>> evaluate(Rebalance& rebalance, Swarm& swarm, int times, Time from = Time{}) {
  std::vector<std::pair<Time, ReplicaMove>> moves;
  for (int i = 0; i < times; ++i) {
    const Time now = from + i * seconds(10);
    if (const auto move = rebalance.evaluate(swarm.seen(now), now)) {
      swarm.carry_out(*move, now);
      moves.emplace_back(now, *move);
    }
  }
  return moves;
}

TEST(Rebalance, PredictsTheBottleneckAndTheFill) {
  EXPECT_DOUBLE_EQ(bottleneck_step({{2}}, 10), 20);
  EXPECT_DOUBLE_EQ(bottleneck_step({{1}, {2}}, 10), 1 + 20);
  EXPECT_DOUBLE_EQ(bottleneck_step({{1}, {3, 1.5}}, 10), 10 + 1.5);
}

TEST(Rebalance, FetchesAtTheDownlinkOrWhatDonorsSpare) {
  EXPECT_EQ(fetch_time(100'000'000, 8, 80e6), seconds(10));
  EXPECT_EQ(fetch_time(100'000'000, 2, 80e6), seconds(20));
  EXPECT_EQ(fetch_time(100'000'000, 0, 80e6), seconds(10));
}

TEST(Rebalance, MovesFromTheRichestStageToThePoorestOnceAReasonHasHeld) {
  auto swarm = Swarm::of({3, 1, 5});
  Rebalance rebalance({}, 1);
  const auto moves = evaluate(rebalance, swarm, 4);
  ASSERT_EQ(moves.size(), 1u);
  EXPECT_EQ(moves[0].first, seconds(20));
  EXPECT_EQ(moves[0].second.from, StageId(2));
  EXPECT_EQ(moves[0].second.to, StageId(1));
  EXPECT_EQ(moves[0].second.reason, Reason::kLargeGain);
  EXPECT_LT(to_seconds(moves[0].second.step_after), 0.51 * to_seconds(moves[0].second.step_before));
}

TEST(Rebalance, ForgetsAReasonThatDidNotHold) {
  auto swarm = Swarm::of({3, 2, 3});
  Rebalance rebalance({}, 1);
  const PeerId lost(4);
  for (int round = 0; round < 5; ++round) {
    const Time now = round * seconds(100);
    auto load = swarm.seen(now);
    std::erase_if(load.replicas, [&](const StageReplica& r) { return r.peer == lost; });
    EXPECT_FALSE(rebalance.evaluate(load, now));
    EXPECT_FALSE(rebalance.evaluate(load, now + seconds(19)));
    EXPECT_FALSE(rebalance.evaluate(swarm.seen(now), now + seconds(21)));  // back again
  }
}

TEST(Rebalance, MovesOnlyForMoreThanItCosts) {
  // Eleven against thirteen: a twelfth is won, which 100 MB are worth and 100 GB are not.
  for (const std::uint64_t state : {100'000'000ull, 100'000'000'000ull}) {
    Swarm swarm({std::vector(13, 1.0), std::vector(11, 1.0)}, state);
    Rebalance rebalance({}, 1);
    EXPECT_EQ(evaluate(rebalance, swarm, 4).size(), state < 1'000'000'000 ? 1u : 0u);
  }
  // A large gain is worth any cost: the step goes from 1 to 0.5.
  Swarm swarm({{1, 1, 1}, {1}}, 100'000'000'000);
  Rebalance rebalance({}, 1);
  EXPECT_EQ(evaluate(rebalance, swarm, 4).size(), 1u);
}

TEST(Rebalance, ChargesForTheTimeAMoveTakes) {
  // A gigabyte from eleven siblings: 100 s, and then some.
  const auto moves = [](Duration horizon, double disturbance) {
    Swarm swarm({std::vector(13, 1.0), std::vector(11, 1.0)}, 1'000'000'000);
    Rebalance::Options options;
    options.horizon = horizon;
    options.disturbance = disturbance;
    Rebalance rebalance(options, 1);
    return evaluate(rebalance, swarm, 4).size();
  };
  EXPECT_EQ(moves(seconds(1000), 0), 1u);
  EXPECT_EQ(moves(seconds(100), 0), 0u);
  EXPECT_EQ(moves(seconds(1000), 1), 0u);
}

TEST(Rebalance, MovesManyWhereEachWinsLittle) {
  auto swarm = Swarm::of({31, 31, 60});
  Rebalance rebalance({}, 1);
  EXPECT_GT(evaluate(rebalance, swarm, 100).size(), 10u);
  for (const auto count : swarm.counts()) EXPECT_GE(count, 38u);
}

TEST(Rebalance, LeavesAloneWhatMayBeNoise) {
  auto swarm = Swarm::of({34, 31});
  Rebalance rebalance({}, 1);
  EXPECT_TRUE(evaluate(rebalance, swarm, 30).empty());
}

TEST(Rebalance, TakesAGainForLargeOnlyBelowTheLimit) {
  // From 1/3 to 1/4 of the time: a share of 0.75, on either side of the limit. No horizon, so nothing else counts.
  for (const double limit : {0.74, 0.76}) {
    auto swarm = Swarm::of({5, 3});
    Rebalance::Options options;
    options.large_gain = limit;
    options.horizon = Duration{};
    Rebalance rebalance(options, 1);
    EXPECT_EQ(evaluate(rebalance, swarm, 4).size(), limit > 0.75 ? 1u : 0u) << limit;
  }
}

TEST(Rebalance, CountsWhatNoMoveChanges) {
  auto swarm = Swarm::of({5, 3});
  swarm.load.step = seconds((1 << 16) * 100.0);  // the stages' share is a three-hundredth
  Rebalance rebalance({}, 1);
  EXPECT_TRUE(evaluate(rebalance, swarm, 4).empty());
}

TEST(Rebalance, ThinksAheadWhenSeveralStagesAreEquallySlow) {
  // No single move shortens the step.
  auto swarm = Swarm::of({4, 1, 1, 4, 2});
  Rebalance rebalance({}, 1);
  const auto moves = evaluate(rebalance, swarm, 60);
  EXPECT_EQ(moves.size(), 2u);
  for (const auto count : swarm.counts()) EXPECT_GE(count, 2u);
}

TEST(Rebalance, DoesNothingWhereNothingCanBeWon) {
  for (const auto& counts : {std::vector<std::size_t>{1, 1, 1}, {4, 4, 4}, {1}, {4, 3, 4}, {2, 1, 1}}) {
    auto swarm = Swarm::of(counts);
    Rebalance rebalance({}, 1);
    EXPECT_TRUE(evaluate(rebalance, swarm, 30).empty());
  }
}

TEST(Rebalance, TakesTheReplicaThatLeavesTheBestResult) {
  // Without its fastest, 3 of 1 + 3 + 1, the donor would be the slowest stage.
  Swarm swarm({{1, 3, 1}, {1.5}});
  Rebalance rebalance({}, 1);
  const auto moves = evaluate(rebalance, swarm, 3);
  ASSERT_EQ(moves.size(), 1u);
  EXPECT_EQ(swarm.speeds[moves[0].second.peer.value - 1], 1);
  // And with a donor that can spare it the fastest is the best.
  Swarm rich({{3, 1, 3, 1, 3}, {1.5}});
  Rebalance again({}, 1);
  const auto fast = evaluate(again, rich, 3);
  ASSERT_EQ(fast.size(), 1u);
  EXPECT_EQ(rich.speeds[fast[0].second.peer.value - 1], 3);
}

TEST(Rebalance, RefillsAnEmptyStageFirstAndAtOnce) {
  auto swarm = Swarm::of({2, 0, 6, 1});
  Rebalance rebalance({}, 1);
  const auto move = rebalance.evaluate(swarm.seen(Time{}), Time{});
  ASSERT_TRUE(move);
  EXPECT_EQ(move->to, StageId(1));
  EXPECT_EQ(move->from, StageId(2));
  EXPECT_EQ(move->reason, Reason::kEmptyStage);
  EXPECT_EQ(move->step_before, kNever);
  // On its way, even while nobody sees it: not sent for twice.
  swarm.remove(move->peer);
  EXPECT_FALSE(rebalance.evaluate(swarm.seen(seconds(1)), seconds(1)));
}

TEST(Rebalance, RefillsEveryStageThatEmptiesAtTheSameTime) {
  auto swarm = Swarm::of({1, 0, 6, 0});
  Rebalance rebalance({}, 1);
  const auto moves = evaluate(rebalance, swarm, 2);
  ASSERT_EQ(moves.size(), 2u);
  EXPECT_EQ(moves[0].second.to, StageId(1));
  EXPECT_EQ(moves[1].second.to, StageId(3));
}

TEST(Rebalance, WaitsForWhoeverFetchesAnEmptyStage) {
  auto swarm = Swarm::of({4, 0, 4});
  swarm.add(StageId(1), 1, seconds(300));
  Rebalance rebalance({}, 1);
  const auto move = rebalance.evaluate(swarm.seen(Time{}), Time{});
  EXPECT_FALSE(move);
}

TEST(Rebalance, NeverTakesTheLastReplicaThatIsCertainlyThere) {
  // Stage 0 has one that is warm, one that fetches and one that is suspected.
  auto swarm = Swarm::of({2, 0});
  swarm.add(StageId(0), 1, seconds(1e6));
  swarm.replica(PeerId(2)).suspected = true;
  Rebalance rebalance({}, 1);
  EXPECT_TRUE(evaluate(rebalance, swarm, 10).empty());
  // Then the suspicion is over.
  swarm.replica(PeerId(2)).suspected = false;
  EXPECT_EQ(evaluate(rebalance, swarm, 10, seconds(200)).size(), 1u);
}

TEST(Rebalance, NeverMakesADonorTheBottleneckWhileTheMoverFetches) {
  // Four of stage 0 still fetch: without one of the two warm ones it would be as slow as one machine.
  auto swarm = Swarm::of({2, 2});
  for (int i = 0; i < 4; ++i) swarm.add(StageId(0), 1, seconds(1e6));
  Rebalance rebalance({}, 1);
  EXPECT_TRUE(evaluate(rebalance, swarm, 30).empty());
}

TEST(Rebalance, MovesOneAtATimeAndRestsAfterwards) {
  auto swarm = Swarm::of({9, 1, 1, 1});
  Rebalance::Options options;
  options.hold = Duration{};
  options.cool_down = seconds(200);
  Rebalance rebalance(options, 1);
  std::vector<Time> starts;
  for (Time now{}; now < seconds(3000); now += seconds(1)) {
    if (const auto move = rebalance.evaluate(swarm.seen(now), now)) {
      swarm.carry_out(*move, now);
      starts.push_back(now);
    }
  }
  ASSERT_EQ(starts.size(), 6u);
  std::vector<Duration> pauses;
  for (std::size_t i = 1; i < starts.size(); ++i) pauses.push_back(starts[i] - starts[i - 1]);
  for (const auto pause : pauses) {
    EXPECT_GE(pause, seconds(15 + 200));
    EXPECT_LE(pause, seconds(15 + 400 + 2));
  }
  EXPECT_NE(*std::ranges::min_element(pauses), *std::ranges::max_element(pauses));  // drawn
}

TEST(Rebalance, MovesSeveralAtATimeIfTold) {
  auto swarm = Swarm::of({9, 1, 1, 1});
  Rebalance::Options options;
  options.movers = 3;
  Rebalance rebalance(options, 1);
  for (auto& warm : swarm.warm_at) warm = Time{};
  int moves = 0;
  for (Time now{}; now < seconds(100); now += seconds(10))
    if (const auto move = rebalance.evaluate(swarm.seen(now), now)) {
      ++moves;
      swarm.replica(move->peer).stage = move->to;
      swarm.warm_at[move->peer.value - 1] = seconds(1e6);
    }
  EXPECT_EQ(moves, 3);
}

TEST(Rebalance, GivesUpAMoverThatIsGone) {
  auto swarm = Swarm::of({5, 1, 3});
  Rebalance rebalance({}, 1);
  const auto moves = evaluate(rebalance, swarm, 3);
  ASSERT_EQ(moves.size(), 1u);
  swarm.remove(moves[0].second.peer);
  const auto next = evaluate(rebalance, swarm, 12, seconds(30));
  ASSERT_EQ(next.size(), 1u);
  EXPECT_EQ(next[0].second.to, StageId(1));
  EXPECT_GT(next[0].first, seconds(20) + Rebalance::Options{}.hold);
}

TEST(Rebalance, LetsAMoverRestEvenIfItsOldStageIsThePoorestNow) {
  auto swarm = Swarm::of({4, 1});
  Rebalance rebalance({}, 1);
  const auto moves = evaluate(rebalance, swarm, 6);
  ASSERT_EQ(moves.size(), 1u);
  const PeerId mover = moves[0].second.peer;
  // Two of its old stage are lost, three come to its new one, slower than the mover.
  for (int left = 0; left < 2; ++left)
    swarm.remove(std::ranges::find(swarm.load.replicas, StageId(0), &StageReplica::stage)->peer);
  for (int i = 0; i < 3; ++i) swarm.add(StageId(1), 0.9, seconds(60));
  const auto next = evaluate(rebalance, swarm, 20, seconds(60));
  ASSERT_GE(next.size(), 1u);
  for (const auto& [at, move] : next) EXPECT_NE(move.peer, mover);
}

TEST(Rebalance, DoesNotGoBackAndForthUnderNoise) {
  const CounterRandom random(3, "shapes");
  std::size_t total = 0;
  for (std::uint64_t shape = 0; shape < times(20); ++shape) {
    std::vector<std::vector<double>> stages(3 + random.below(6, 2 * shape));
    for (std::size_t s = 0; s < stages.size(); ++s)
      stages[s].assign(
          3 + (s + shape) % 2,
          shape % 3 == 0 ? 1.0 : 0.7 + 0.6 * static_cast<double>(random.below(1000, 100 * shape + s)) / 1000);
    Swarm swarm(stages);
    Rebalance rebalance({}, shape);
    evaluate(rebalance, swarm, 200);  // to its best arrangement
    swarm.noise = 0.1;
    const auto moves = evaluate(rebalance, swarm, 1000, seconds(2000));
    EXPECT_LE(moves.size(), 3u) << shape;
    std::set<PeerId> movers;
    for (const auto& [at, move] : moves) EXPECT_TRUE(movers.insert(move.peer).second) << shape << ": moved twice";
    total += moves.size();
  }
  EXPECT_LE(total, 10u);  // in 20 swarms of 1,000 evaluations
}

TEST(Rebalance, NeverOpensAGapAndNeverSlowsDown) {
  for (std::uint64_t seed = 0; seed < times(100); ++seed) {
    const CounterRandom random(seed, "trace");
    std::uint64_t drawn = 0;
    const auto below = [&](std::uint64_t limit) { return random.below(limit, drawn++); };
    const auto stages = static_cast<std::uint32_t>(2 + below(6));
    Swarm swarm(std::vector<std::vector<double>>(stages, {1.0, 1.0}));
    swarm.fetching_are_known = true;
    for (std::uint32_t s = 0; s < stages; ++s) swarm.load.stages[s].work = 1 + static_cast<double>(below(3));
    Rebalance rebalance({}, seed);
    for (Time now{}; now < seconds(10000); now += seconds(10)) {
      if (below(10) == 0)
        swarm.add(StageId(static_cast<std::uint32_t>(below(stages))), 0.5 + static_cast<double>(below(100)) / 50,
                  now + seconds(60));
      // Alone or several at once.
      if (below(12) == 0)
        for (std::uint64_t leave = 1 + below(4); leave > 0 && !swarm.load.replicas.empty(); --leave)
          swarm.remove(swarm.load.replicas[below(swarm.load.replicas.size())].peer);
      for (auto& r : swarm.load.replicas) r.suspected = below(30) == 0;
      const auto load = swarm.seen(now);
      const auto move = rebalance.evaluate(load, now);
      if (!move) continue;
      const double before = swarm.throughput(now);
      ASSERT_EQ(swarm.replica(move->peer).stage, move->from);
      swarm.carry_out(*move, now);
      EXPECT_NEAR(swarm.throughput(now), before, 1e-6) << seed;  // the poorest stage stays it while the mover fetches
      EXPECT_GE(std::ranges::count_if(swarm.load.replicas,
                                      [&](const StageReplica& r) {
                                        return r.stage == move->from && r.peer != move->peer && r.warm && !r.suspected;
                                      }),
                1)
          << seed;
      if (move->step_before != kNever) {
        EXPECT_LT(move->step_after, move->step_before) << seed;
      }
      // Whatever happens to the others, this move alone leaves no stage slower than the slowest was.
      const double after = swarm.throughput(now + seconds(1e6));
      swarm.replica(move->peer).stage = move->from;
      EXPECT_GE(after, swarm.throughput(now + seconds(1e6)) - 1e-6) << seed;
      swarm.replica(move->peer).stage = move->to;
    }
  }
}

TEST(Rebalance, IsAFunctionOfItsSeed) {
  const auto moves = [](std::uint64_t seed) {
    auto swarm = Swarm::of({12, 1, 1, 1, 1});
    Rebalance::Options options;
    options.cool_down = seconds(100);
    Rebalance rebalance(options, seed);
    std::vector<std::pair<Time, ReplicaMove>> moves;
    for (Time now{}; now < seconds(2000); now += seconds(1))
      if (const auto move = rebalance.evaluate(swarm.seen(now), now)) {
        swarm.carry_out(*move, now);
        moves.emplace_back(now, *move);
      }
    return moves;
  };
  EXPECT_GE(moves(1).size(), 4u);
  EXPECT_EQ(moves(1), moves(1));
  EXPECT_NE(moves(1), moves(2));
}

TEST(Rebalance, AsksThePredictorItWasGiven) {
  auto swarm = Swarm::of({3, 1, 5});
  int asked = 0;
  Rebalance rebalance({}, 1, [&](const std::vector<std::vector<double>>& services, std::uint32_t microbatches) {
    EXPECT_EQ(services.size(), 3u);
    EXPECT_EQ(microbatches, 1u << 16);
    ++asked;
    return 1.0;  // nothing helps
  });
  EXPECT_TRUE(evaluate(rebalance, swarm, 10).empty());
  EXPECT_GT(asked, 0);
}

TEST(Rebalance, SendsNobodyWhoCannotHoldTheStage) {
  Swarm swarm({{1, 1, 1}, {1}});
  swarm.load.stages[1].memory_bytes = 8'000;
  for (auto& r : swarm.load.replicas) r.memory_bytes = 4'000;
  {
    Rebalance rebalance({}, 1);
    EXPECT_TRUE(evaluate(rebalance, swarm, 10).empty());
  }
  // Not even if nobody serves it.
  swarm.remove(PeerId(4));
  {
    Rebalance rebalance({}, 1);
    EXPECT_TRUE(evaluate(rebalance, swarm, 10).empty());
  }
  // One that has not said what it has may go, and so may one that holds as much already.
  swarm.replica(PeerId(2)).memory_bytes = 0;
  Swarm full = swarm;
  full.replica(PeerId(2)).memory_bytes = 4'000;
  full.load.stages[0].memory_bytes = 8'000;
  Rebalance rebalance({}, 1), other({}, 1);
  const auto moves = evaluate(rebalance, swarm, 1);
  ASSERT_EQ(moves.size(), 1u);
  EXPECT_EQ(moves[0].second.peer, PeerId(2));
  EXPECT_EQ(evaluate(other, full, 1).size(), 1u);
}

// Every mover is lost a while after it has arrived.
TEST(Rebalance, WaitsLongerAfterEveryMoverThatWasLostAndThenGivesUp) {
  auto swarm = Swarm::of({9, 0, 9});
  Rebalance rebalance({}, 1);
  std::vector<Time> at;
  std::vector<PeerId> lost;
  for (Time now{}; now < seconds(3600); now += seconds(1)) {
    if (!lost.empty() && now - at.back() >= seconds(20)) swarm.remove(lost.back());
    const auto move = rebalance.evaluate(swarm.seen(now), now);
    if (!move || move->to != StageId(1)) continue;
    EXPECT_EQ(move->reason, Reason::kEmptyStage);
    rebalance.moved(move->peer, move->to, true);
    swarm.carry_out(*move, now);
    at.push_back(now);
    lost.push_back(move->peer);
  }
  ASSERT_EQ(at.size(), Rebalance::Options{}.refills);
  EXPECT_EQ(at[0], Time{});
  EXPECT_GE(at[1] - at[0], seconds(20) + Rebalance::Options{}.refill_pause);
  EXPECT_GT(at[2] - at[1], at[1] - at[0]);
  EXPECT_TRUE(rebalance.has_given_up(StageId(1)));
  // Somebody else comes and serves it.
  const PeerId other = swarm.add(StageId(1), 1, seconds(3600));
  for (int step = 0; step < 3; ++step) rebalance.served(StageId(1));
  EXPECT_FALSE(rebalance.has_given_up(StageId(1)));
  swarm.remove(other);
  EXPECT_TRUE(rebalance.evaluate(swarm.seen(seconds(3700)), seconds(3700)));
}

TEST(Rebalance, RefillsAgainAtOnceAStageThatWasServedMeanwhile) {
  auto swarm = Swarm::of({9, 0, 9});
  Rebalance rebalance({}, 1);
  for (Time now{}; now < seconds(1000); now += seconds(100)) {
    const auto move = rebalance.evaluate(swarm.seen(now), now);
    ASSERT_TRUE(move) << to_seconds(now);
    rebalance.moved(move->peer, move->to, true);
    swarm.carry_out(*move, now);
    rebalance.evaluate(swarm.seen(now + seconds(20)), now + seconds(20));
    for (int step = 0; step < 3; ++step) rebalance.served(move->to);
    swarm.remove(move->peer);
  }
}

// What replicas of a stage tell each other at the end of a step takes 40 s; alone, a replica tells nobody anything.
Swarm summing(const std::vector<std::size_t>& counts) {
  auto swarm = Swarm::of(counts);
  swarm.load.microbatches = 4;
  for (auto& stage : swarm.load.stages) stage.sum_bytes = 800'000'000;
  return swarm;
}

TEST(Rebalance, OpensNoSumThatTakesLongerThanItWins) {
  auto swarm = summing({3, 1, 3});
  for (const std::size_t on_its_own : {0, 2})
    swarm.load.stages[on_its_own].sum_bytes = 0;  // replicas that step on their own
  Rebalance rebalance({}, 1);
  EXPECT_TRUE(evaluate(rebalance, swarm, 20).empty());
  swarm.load.microbatches = 400;  // 200 s of 400 are worth it
  Rebalance other({}, 1);
  EXPECT_EQ(evaluate(other, swarm, 4).size(), 1u);
}

TEST(Rebalance, LeavesAStageWhoseSumsTakeLongerThanTheReplicaIsWorth) {
  auto swarm = summing({2, 2, 2});
  for (const std::size_t on_its_own : {0, 2}) swarm.load.stages[on_its_own].sum_bytes = 0;
  swarm.load.step = seconds(43);
  Rebalance rebalance({}, 1);
  const auto moves = evaluate(rebalance, swarm, 100);
  ASSERT_EQ(moves.size(), 1u);  // and nobody comes back
  EXPECT_EQ(moves[0].second.from, StageId(1));
  EXPECT_EQ(moves[0].second.reason, Reason::kLargeGain);
  // Where all add up nothing is won by it.
  auto all = summing({2, 2, 2});
  Rebalance other({}, 1);
  EXPECT_TRUE(evaluate(other, all, 20).empty());
}

TEST(Rebalance, CountsWhatUplinksCarry) {
  // Equal devices, but two of the three uplinks of stage 0 carry a twentieth of what their devices compute.
  auto swarm = Swarm::of({3, 1, 3});
  for (auto& stage : swarm.load.stages) stage.sent_bytes = 100'000;  // 0.01 s at 80 Mb/s
  for (auto& r : swarm.load.replicas)
    r.uplink_bits_per_second = r.peer == PeerId(1) || r.peer == PeerId(2) ? 40'000 : 80e6;
  Rebalance rebalance({}, 1);
  const auto moves = evaluate(rebalance, swarm, 4);
  ASSERT_EQ(moves.size(), 1u);
  EXPECT_EQ(moves[0].second.from, StageId(2));
  // The measured step shows that they carry more than it seemed.
  swarm = Swarm::of({1, 2});
  for (auto& stage : swarm.load.stages) stage.sent_bytes = 100'000;
  for (auto& r : swarm.load.replicas) r.uplink_bits_per_second = r.stage == StageId(0) ? 80e6 : 40'000;
  swarm.load.step = seconds(swarm.load.microbatches);
  Rebalance other({}, 1);
  EXPECT_TRUE(evaluate(other, swarm, 20).empty());
}

// A step takes 100 s, and a mover leaves at its end; it takes the fetch of a moment and is let in at the end of the
// next one.
TEST(Rebalance, IsPatientWithAMoverThatWaitsForTheEndOfTheStep) {
  auto swarm = Swarm::of({9, 1, 9});
  swarm.load.step = seconds(100);
  for (auto& stage : swarm.load.stages) stage.state_bytes = 1000;
  Rebalance rebalance({}, 1);
  const auto moves = evaluate(rebalance, swarm, 3);  // decided at 20 s …
  ASSERT_EQ(moves.size(), 1u);
  const PeerId mover = moves[0].second.peer;
  swarm.replica(mover).stage = moves[0].second.from;
  swarm.warm_at[mover.value - 1] = Time{};
  EXPECT_TRUE(evaluate(rebalance, swarm, 8, seconds(30)).empty());
  swarm.replica(mover).stage = StageId(1);  // … left at 110 s …
  swarm.warm_at[mover.value - 1] = seconds(300);
  EXPECT_TRUE(evaluate(rebalance, swarm, 19, seconds(110)).empty());  // … and is there at 300 s
  EXPECT_GE(evaluate(rebalance, swarm, 30, seconds(300)).size(), 1u);
}

TEST(Rebalance, LetsAMoverOffThatStaysWhereItWas) {
  auto swarm = Swarm::of({3, 1});
  Rebalance rebalance({}, 1);
  auto moves = evaluate(rebalance, swarm, 3);
  ASSERT_EQ(moves.size(), 1u);
  const PeerId mover = moves[0].second.peer;
  rebalance.dropped(mover);
  swarm.replica(mover).stage = StageId(0);
  swarm.warm_at[mover.value - 1] = Time{};
  moves = evaluate(rebalance, swarm, 4, seconds(30));  // it has not moved, so it need not rest
  ASSERT_EQ(moves.size(), 1u);
  EXPECT_EQ(moves[0].second.peer, mover);
}

TEST(Rebalance, KnowsMovesThatWereMadeBeforeItBegan) {
  auto swarm = Swarm::of({5, 1});
  Rebalance first({}, 1);
  const auto moves = evaluate(first, swarm, 3);
  ASSERT_EQ(moves.size(), 1u);
  swarm.warm_at[moves[0].second.peer.value - 1] = seconds(200);
  Rebalance again({}, 1);
  again.moved(moves[0].second.peer, moves[0].second.to, false);
  EXPECT_TRUE(evaluate(again, swarm, 4, seconds(30)).empty());  // 4 and 2 would be 3 and 3, but it is on its way
  // It is there, and the other stage is the poor one now: somebody else goes.
  for (int left = 0; left < 3; ++left)
    swarm.remove(std::ranges::find(swarm.load.replicas, StageId(0), &StageReplica::stage)->peer);
  for (int i = 0; i < 3; ++i) swarm.add(StageId(1), 0.9, Time{});
  const auto next = evaluate(again, swarm, 20, seconds(200));
  ASSERT_GE(next.size(), 1u);
  for (const auto& [at, move] : next) EXPECT_NE(move.peer, moves[0].second.peer);
}

}  // namespace
}  // namespace isthmus::coordinator
