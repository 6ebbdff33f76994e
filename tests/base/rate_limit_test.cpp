#include "base/rate_limit.h"

#include <gtest/gtest.h>

namespace isthmus {
namespace {

TEST(RateLimit, GivesSoManyAtOnceAndThenOneAtATime) {
  constexpr RateLimit::Rate rate{3, seconds(2)};
  RateLimit limit;
  Time now = seconds(100);
  for (int n = 0; n < 3; ++n) EXPECT_TRUE(limit.takes(rate, now)) << n;
  EXPECT_FALSE(limit.takes(rate, now));
  EXPECT_FALSE(limit.takes(rate, now + seconds(1.9))) << "who asks in vain waits no longer for it";
  EXPECT_TRUE(limit.takes(rate, now + seconds(2)));
  EXPECT_FALSE(limit.takes(rate, now + seconds(2)));
  EXPECT_FALSE(limit.is_full(now + seconds(7.9)));
  EXPECT_TRUE(limit.is_full(now + seconds(8)));
  now += seconds(1000);
  for (int n = 0; n < 3; ++n) EXPECT_TRUE(limit.takes(rate, now)) << "no more than at once: " << n;
  EXPECT_FALSE(limit.takes(rate, now));
}

}  // namespace
}  // namespace isthmus
