#include "router/device_pace.h"

#include <gtest/gtest.h>

#include "base/counter_random.h"

namespace isthmus::router {
namespace {

constexpr protocol::Operation kF = protocol::Operation::kForward, kI = protocol::Operation::kInputGradient,
                              kW = protocol::Operation::kWeightGradient;

class Pace : public ::testing::Test {
 protected:
  void takes(protocol::Operation operation, double took) {
    pace_.began(operation, now_);
    now_ += seconds(took);
    pace_.ended(operation, seconds(took));
  }
  // F, I and W of 1, 2 and 1 s, a few times.
  void settle() {
    for (int i = 0; i < 5; ++i) takes(kF, 1), takes(kI, 2), takes(kW, 1);
  }
  double service() const { return pace_.service(now_); }

  DevicePace pace_;
  Time now_ = seconds(100);
};

TEST_F(Pace, OneOperationOutOfManyHardlyMovesIt) {
  for (const double took : {2.0, 2.4, 5.0, 50.0}) {
    settle();
    pace_.began(kF, now_);
    EXPECT_NEAR(pace_.service(now_ + seconds(took)), 4, 0.7) << took;
    takes(kF, took);
    pace_.began(kI, now_);
    EXPECT_LT(pace_.service(now_ + seconds(2)), 4.7) << took;
    takes(kI, 2);
    EXPECT_LT(service(), 4.7) << took;
  }
}

TEST_F(Pace, TheSecondSlowOperationShowsItWhileItRuns) {
  settle();
  takes(kF, 5);
  EXPECT_LT(service(), 5);
  pace_.began(kI, now_);
  const Time due = pace_.next_due(now_);
  EXPECT_NEAR(to_seconds(due - now_), 5, 0.1);
  EXPECT_LT(pace_.service(due - seconds(0.1)), 5);
  EXPECT_NEAR(pace_.service(due), 20, 1);
  pace_.ended(kI, seconds(10));
  EXPECT_NEAR(service(), 20, 3);  // and stays
  takes(kW, 5);
  EXPECT_NEAR(service(), 20, 3);
}

// For as long as it has been running, and not every moment anew.
TEST_F(Pace, ASecondOneThatNeverEndsShowsMoreAndMore) {
  settle();
  takes(kI, 6);
  pace_.began(kF, now_);
  const Time due = pace_.next_due(now_);
  EXPECT_NEAR(to_seconds(due - now_), 2.5, 0.1);
  EXPECT_NEAR(to_seconds(pace_.next_due(due) - now_), 5, 0.1);
  EXPECT_GE(pace_.service(now_ + seconds(100)), 100 * 4);
  pace_.forget_running();
  EXPECT_LT(service(), 4.7);
  pace_.began(kF, now_);
  EXPECT_EQ(pace_.next_due(now_), kNever);
}

TEST_F(Pace, ARecoveredDeviceShowsWithTwoOfEachKind) {
  settle();
  for (int i = 0; i < 3; ++i) takes(kF, 5), takes(kI, 10), takes(kW, 5);
  ASSERT_NEAR(service(), 20, 2);
  for (int i = 0; i < 2; ++i) takes(kF, 1), takes(kI, 2), takes(kW, 1);
  EXPECT_NEAR(service(), 4, 0.1);
}

// Caches, kernels that are compiled: the first one of a kind, which says nothing about the others.
TEST_F(Pace, AFirstOperationThatTakesLongIsForgottenByItself) {
  takes(kF, 10);
  takes(kF, 1);
  takes(kI, 20);
  takes(kF, 1);
  takes(kI, 2);
  takes(kI, 2);
  takes(kW, 1);
  EXPECT_NEAR(service(), 4, 0.3);
}

TEST_F(Pace, NoiseIsAveragedAway) {
  const CounterRandom random(5, "noise");
  settle();
  for (std::uint64_t i = 0; i < 2000; ++i) {
    const double noise = 0.7 + 6e-7 * static_cast<double>(random.below(1'000'000, 2 * i));
    const double hiccup = random.below(20, 2 * i + 1) == 0 ? 1.8 : 1;
    const protocol::Operation operation = i % 3 == 0 ? kF : i % 3 == 1 ? kI : kW;
    takes(operation, noise * hiccup * (operation == kI ? 2 : 1));
    ASSERT_GT(service(), 3) << i;
    ASSERT_LT(service(), 6) << i;
  }
}

}  // namespace
}  // namespace isthmus::router
