#include "base/time.h"

#include <gtest/gtest.h>

#include <limits>

namespace isthmus {
namespace {

TEST(Seconds, AreNanosecondsAndSaturate) {
  EXPECT_EQ(seconds(1.5), std::chrono::milliseconds(1500));
  EXPECT_EQ(seconds(-0.25), std::chrono::milliseconds(-250));
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double much : {3e9, 1e300, kInfinity, std::numeric_limits<double>::quiet_NaN()})
    EXPECT_GT(seconds(much), std::chrono::years(70));
  for (const double much : {-3e9, -kInfinity}) EXPECT_LT(seconds(much), -std::chrono::years(70));
  EXPECT_GT(seconds(kInfinity) + seconds(kInfinity) + seconds(kInfinity), seconds(kInfinity));
}

}  // namespace
}  // namespace isthmus
