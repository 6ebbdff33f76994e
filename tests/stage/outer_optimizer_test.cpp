#include "stage/outer_optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/counter_random.h"
#include "config/load_run.h"

namespace isthmus::stage {
namespace {

const std::vector<std::uint64_t> kTensors = {70'000, 4096, 1, 300};
constexpr std::size_t kNumbers = 74'397;

spec::RunConfig run_of(const std::string& mode, const std::vector<std::string>& overrides = {}) {
  std::vector<std::string> all = {"pipeline.layout=auto", "pipeline.stages=1", "pipeline.replicas=4",
                                  "run.steps=100",        "sync.mode=" + mode, "sync.every=10"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  const auto run = config::parse_run("[data]\ntrain=\"a\"\nvalidation=\"b\"\n[pipeline]\n", "run.toml", all);
  EXPECT_TRUE(run) << run.error().front().text();
  return *run;
}

std::vector<float> weights(std::uint64_t seed) {
  const CounterRandom random(seed, "weights");
  std::vector<float> values(kNumbers);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.normal(i));
  return values;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  return std::sqrt(sum);
}

// Replicas of a stage that move as training would: all of them the same way, and each a little by itself.
class Outer : public ::testing::Test {
 protected:
  struct Replica {
    std::unique_ptr<OuterOptimizer> outer;
    std::vector<float> weights;
    std::uint32_t microbatches = 20;
  };

  void begin(const spec::RunConfig& run, std::size_t count) {
    replicas_.clear();
    for (std::uint32_t r = 0; r < count; ++r) {
      Replica& replica = replicas_.emplace_back();
      replica.outer = std::make_unique<OuterOptimizer>(run, kTensors, RehearsedLiar::of(run, StageId(0), ReplicaId(r)));
      replica.weights = weights(1);
      replica.outer->begin(replica.weights);
    }
  }
  void train(std::uint64_t version) {
    const CounterRandom way(version, "the way they all go");
    for (std::size_t r = 0; r < replicas_.size(); ++r) {
      const CounterRandom own(version, "the way of " + std::to_string(r));
      for (std::size_t i = 0; i < kNumbers; ++i)
        replicas_[r].weights[i] += static_cast<float>(0.01 * (way.normal(i) + 0.5 * own.normal(i)));
    }
  }
  // Returns what was found wrong, by replica.
  std::vector<std::string> sync(std::uint64_t version) {
    std::vector<std::vector<SharedBytes>> updates;
    for (auto& replica : replicas_) {
      const auto own = replica.outer->updates(version, replica.weights, replica.microbatches);
      updates.resize(own.size());
      for (std::size_t slice = 0; slice < own.size(); ++slice) updates[slice].push_back(own[slice]);
    }
    outcome_.clear();
    std::vector<std::string> offences(replicas_.size());
    for (std::uint32_t slice = 0; slice < updates.size(); ++slice) {
      for (auto& replica : replicas_) {
        auto agreement = replica.outer->agree(version, slice, updates[slice]);
        for (std::size_t i = 0; i < offences.size(); ++i)
          if (offences[i].empty()) offences[i] = agreement.offences[i];
        if (&replica != &replicas_.front()) continue;
        if (agreement.bytes)
          outcome_.insert(outcome_.end(), agreement.bytes->begin(), agreement.bytes->end());
        else
          for (const auto& update : updates[slice]) outcome_.insert(outcome_.end(), update->begin(), update->end());
      }
    }
    for (auto& replica : replicas_) EXPECT_EQ(replica.outer->digest(), replicas_.front().outer->digest());
    for (auto& replica : replicas_) {
      replica.outer->apply(replica.weights);
      EXPECT_EQ(replica.outer->anchor(), replicas_.front().outer->anchor());
    }
    told_ = updates;
    return offences;
  }

  std::vector<Replica> replicas_;
  std::vector<std::vector<SharedBytes>> told_;
  Bytes outcome_;
};

TEST_F(Outer, WithAllOfItAndNoMomentumIsTheMeanWeightedByMicrobatches) {
  begin(run_of("diloco", {"sync.learning_rate=1", "sync.momentum=0"}), 3);
  train(10);
  replicas_[1].microbatches = 5;
  std::vector<float> mean(kNumbers);
  for (std::size_t i = 0; i < kNumbers; ++i)
    mean[i] = (20 * replicas_[0].weights[i] + 5 * replicas_[1].weights[i] + 20 * replicas_[2].weights[i]) / 45;
  const double moved = distance(mean, weights(1));
  for (const auto& offence : sync(10)) EXPECT_EQ(offence, "");
  // Two roundings to bf16, of the way that was gone; and the largest norm is clipped to the median.
  EXPECT_LT(distance(replicas_[0].weights, mean), 0.02 * moved);
  EXPECT_EQ(replicas_[0].weights, replicas_[2].weights);
}

TEST_F(Outer, HasTheMomentumOfNesterov) {
  begin(run_of("diloco"), 1);
  std::vector<double> anchor(kNumbers), momentum(kNumbers, 0.0);
  const auto first = weights(1);
  for (std::size_t i = 0; i < kNumbers; ++i) anchor[i] = first[i];
  for (const std::uint64_t version : {10, 20, 30}) {
    train(version);
    for (std::size_t i = 0; i < kNumbers; ++i) {
      const double gradient = anchor[i] - replicas_[0].weights[i];
      momentum[i] = 0.9 * momentum[i] + gradient;
      anchor[i] -= 0.7 * (gradient + 0.9 * momentum[i]);
    }
    (void)sync(version);
    for (std::size_t i = 0; i < kNumbers; i += 97)
      ASSERT_NEAR(replicas_[0].weights[i], anchor[i], 3e-3) << version << " " << i;
    for (std::size_t i = 0; i < kNumbers; ++i) anchor[i] = replicas_[0].weights[i];
  }
}

// What is not told stays in the weights, so that alone a replica keeps all it has learned.
TEST_F(Outer, SparseUpdatesTakeNothingFromAReplicaThatIsAlone) {
  begin(run_of("sparseloco", {"sync.error_feedback=1"}), 1);
  for (const std::uint64_t version : {10, 20, 30}) {
    train(version);
    const auto before = replicas_[0].weights;
    (void)sync(version);
    EXPECT_LT(distance(replicas_[0].weights, before), 1e-4) << version;
    EXPECT_GT(distance(replicas_[0].outer->anchor(), before), 1.0) << version;
  }
}

// … and at the end, when all is told, replicas meet in the middle, however far they went for what they told before.
TEST_F(Outer, SparseUpdatesEndInTheMean) {
  begin(run_of("sparseloco"), 4);
  for (const std::uint64_t version : {80, 90}) {
    train(version);
    (void)sync(version);
  }
  train(100);
  std::vector<float> mean(kNumbers);
  for (std::size_t i = 0; i < kNumbers; ++i)
    for (const auto& replica : replicas_) mean[i] += replica.weights[i] / 4;
  const double apart = distance(replicas_[0].weights, mean);
  (void)sync(100);
  // Rounded to bf16, and the largest norms are clipped to the median.
  EXPECT_LT(distance(replicas_[0].weights, mean), 0.03 * apart);
}

// The mean is taken twice, because most of a number's replicas did not tell it; with two it is their sum.
TEST_F(Outer, SparseUpdatesAreNeverMoreThanWhatWasTold) {
  for (const std::size_t count : {2u, 4u}) {
    begin(run_of("sparseloco"), count);
    train(10);
    const auto before = replicas_[0].outer->anchor();
    (void)sync(10);
    auto once = replicas_[0].outer->anchor();
    begin(run_of("sparseloco", {"sync.learning_rate=1"}), count);
    train(10);
    (void)sync(10);
    for (std::size_t i = 0; i < kNumbers; ++i)
      ASSERT_NEAR(once[i] - before[i], 2 * (replicas_[0].outer->anchor()[i] - before[i]), 1e-5) << i;
  }
}

TEST_F(Outer, SparseUpdatesCostAHundredFortiethOfTheWeights) {
  begin(run_of("sparseloco"), 4);
  train(10);
  (void)sync(10);
  EXPECT_LT(static_cast<double>(told_[0][0]->size()), 0.029 * kNumbers);
}

// As published, a replica goes on from what all have agreed on, and remembers what it did not tell.
TEST_F(Outer, WithTheResidualInMemoryAllGoOnFromTheSameWeights) {
  begin(run_of("sparseloco", {"sync.residual=memory"}), 3);
  for (const std::uint64_t version : {10, 20, 30}) {
    train(version);
    (void)sync(version);
    EXPECT_EQ(replicas_[0].weights, replicas_[1].weights);
    EXPECT_EQ(replicas_[0].weights, replicas_[0].outer->anchor());
  }
}

TEST_F(Outer, TheLastSyncTakesAllNumbersInEveryMode) {
  for (const char* mode : {"diloco", "sparseloco", "slices"}) {
    begin(run_of(mode), 3);
    train(10);
    (void)sync(10);
    train(100);
    (void)sync(100);
    EXPECT_EQ(replicas_[0].weights, replicas_[1].weights) << mode;
    EXPECT_EQ(replicas_[0].weights, replicas_[2].weights) << mode;
  }
}

TEST_F(Outer, SlicesHaveEveryNumberItsTurn) {
  begin(run_of("slices", {"sync.share=0.25"}), 2);
  train(10);
  const auto before = replicas_[0].weights;
  std::vector<bool> met(kNumbers);
  for (const std::uint64_t version : {10, 20, 30, 40}) {
    (void)sync(version);
    std::size_t moved = 0;
    for (std::size_t i = 0; i < kNumbers; ++i) {
      if (replicas_[0].weights[i] == replicas_[1].weights[i]) met[i] = true;
      moved += replicas_[0].weights[i] != before[i];
    }
    EXPECT_LE(moved, kNumbers * version / 40 + 5 * compress::kTile) << version;
  }
  EXPECT_EQ(std::ranges::count(met, false), 0);
}

TEST_F(Outer, WhoJoinsHoldsTheAnchorAndDoesNotCountUntilItsMomentsAreWarm) {
  for (const char* mode : {"diloco", "sparseloco", "slices"}) {
    begin(run_of(mode, {"sync.warmup=2"}), 3);
    for (const std::uint64_t version : {10, 20}) {
      train(version);
      (void)sync(version);
    }
    ASSERT_EQ(replicas_[0].outer->state()->size(), replicas_[0].outer->state_bytes());
    ASSERT_TRUE(replicas_[2].outer->restore(*replicas_[0].outer->state()));
    EXPECT_EQ(replicas_[2].outer->anchor(), replicas_[0].outer->anchor());
    replicas_[2].weights = replicas_[2].outer->anchor();
    for (const std::uint64_t version : {30, 40, 50}) {
      train(version);
      (void)sync(version);
      EXPECT_EQ(told_[0][2]->size() == 4, version < 50) << mode << " " << version;
    }
  }
}

TEST_F(Outer, WhoMissedASyncMakesItOfWhatWasKept) {
  for (const char* mode : {"diloco", "sparseloco", "slices"}) {
    begin(run_of(mode), 3);
    train(10);
    (void)sync(10);
    // The third one is away.
    Replica away = std::move(replicas_.back());
    replicas_.pop_back();
    replicas_[0].microbatches = 0;
    for (const std::uint64_t version : {20, 30}) {
      train(version);
      (void)sync(version);
      ASSERT_TRUE(away.outer->take_all(version, share(Bytes(outcome_)))) << mode;
      away.outer->apply(away.weights);
      EXPECT_EQ(away.outer->anchor(), replicas_[0].outer->anchor()) << mode;
      EXPECT_FALSE(away.outer->take_all(version + 10, share(Bytes(outcome_.begin(), outcome_.end() - 1))));
      away.outer->begin(replicas_[0].outer->anchor());
      if (std::string_view(mode) == "diloco")
        away.outer->set(replicas_[0].outer->anchor(), replicas_[0].outer->momentum());
      replicas_[0].microbatches = 20;
    }
  }
}

// As where every step is skipped.
TEST_F(Outer, NobodyIsTakenForACopyWhereNothingMoves) {
  for (const char* mode : {"diloco", "sparseloco", "slices"}) {
    begin(run_of(mode), 3);
    for (const std::uint64_t version : {10, 20, 30})
      for (const auto& offence : sync(version)) EXPECT_EQ(offence, "") << mode << ", version " << version;
  }
}

TEST_F(Outer, RefusesAStateOfAnotherSize) {
  begin(run_of("diloco"), 1);
  EXPECT_FALSE(replicas_[0].outer->restore(Bytes(kNumbers * 4)));
  EXPECT_TRUE(replicas_[0].outer->restore(Bytes(kNumbers * 8)));
}

// Whatever one of four sends, it is named, nobody else is, and the others end where they would without it.
class Lies : public Outer, public ::testing::WithParamInterface<std::tuple<std::string, std::string>> {};

TEST_P(Lies, AreNamedAndDoLittle) {
  const auto [mode, lie] = GetParam();
  std::vector<float> honest;
  for (const std::uint32_t liar : {0u, 2u}) {
    begin(run_of(mode,
                 {"rehearsal.liar=" + std::to_string(liar), liar > 0 ? "rehearsal.lie=" + lie : "rehearsal.liar=0"}),
          4);
    std::vector<std::string> named(4);
    for (const std::uint64_t version : {10, 20, 30, 40}) {
      train(version);
      const auto offences = sync(version);
      for (std::size_t r = 0; r < 4; ++r)
        if (!offences[r].empty()) named[r] = offences[r];
    }
    for (std::size_t r = 0; r < 4; ++r) EXPECT_EQ(!named[r].empty(), liar == r + 1) << r << ": " << named[r];
    if (liar == 0) honest = replicas_[0].outer->anchor();
  }
  const double moved = distance(honest, weights(1));
  EXPECT_LT(distance(replicas_[0].outer->anchor(), honest), 0.6 * moved);
}

INSTANTIATE_TEST_SUITE_P(All, Lies,
                         ::testing::Combine(::testing::Values("sparseloco"),
                                            ::testing::Values("not_finite", "scale", "noise", "stale", "copy")),
                         [](const auto& p) { return std::get<0>(p.param) + "_" + std::get<1>(p.param); });
INSTANTIATE_TEST_SUITE_P(Dense, Lies,
                         ::testing::Combine(::testing::Values("diloco"),
                                            ::testing::Values("not_finite", "scale", "noise")),
                         [](const auto& p) { return std::get<0>(p.param) + "_" + std::get<1>(p.param); });

}  // namespace
}  // namespace isthmus::stage
