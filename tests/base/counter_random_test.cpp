#include "base/counter_random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace isthmus {
namespace {

TEST(CounterRandom, IsAPureFunctionOfSeedStreamAndCounter) {
  const CounterRandom a(7, "weights"), b(7, "weights"), other_stream(7, "data"), other_seed(8, "weights");
  EXPECT_EQ(a.bits(123), b.bits(123));
  EXPECT_NE(a.bits(123), a.bits(124));
  EXPECT_NE(a.bits(123), other_stream.bits(123));
  EXPECT_NE(a.bits(123), other_seed.bits(123));
}

// The bits are part of the format: every participant derives U, E and the initial weights from them.
TEST(CounterRandom, KeepsItsBits) {
  const CounterRandom random(1, "golden");
  const CounterRandom again(1, "golden");
  std::set<std::uint64_t> seen;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(random.bits(i), again.bits(i));
    seen.insert(random.bits(i));
  }
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(CounterRandom, NormalsHaveMeanZeroAndVarianceOne) {
  const CounterRandom random(3, "normal");
  double sum = 0, squares = 0, fourth = 0;
  constexpr int kCount = 200'000;
  for (int i = 0; i < kCount; ++i) {
    const double x = random.normal(static_cast<std::uint64_t>(i));
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / kCount, 0.0, 0.01);
  EXPECT_NEAR(squares / kCount, 1.0, 0.01);
  // Eight uniforms: kurtosis 3 - 1.2 / 8.
  EXPECT_NEAR(fourth / kCount, 2.85, 0.05);
}

TEST(CounterRandom, BelowStaysBelowAndReachesEverything) {
  const CounterRandom random(3, "below");
  std::set<std::uint64_t> seen;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const auto x = random.below(7, i);
    ASSERT_LT(x, 7u);
    seen.insert(x);
  }
  EXPECT_EQ(seen.size(), 7u);
}

}  // namespace
}  // namespace isthmus
