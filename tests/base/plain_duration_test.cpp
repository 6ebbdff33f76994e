#include "base/plain_duration.h"

#include <gtest/gtest.h>

namespace isthmus {
namespace {

TEST(PlainDuration, IsSaidAsPeopleSayIt) {
  EXPECT_EQ(plain_duration(0), "0 s");
  EXPECT_EQ(plain_duration(119), "119 s");
  EXPECT_EQ(plain_duration(120), "2 min");
  EXPECT_EQ(plain_duration(7199), "119 min");
  EXPECT_EQ(plain_duration(26 * 3600), "26 h");
  EXPECT_EQ(plain_duration(9 * 86400 + 5), "9 days");
}

TEST(PlainDuration, IsReadAsPeopleWriteIt) {
  EXPECT_EQ(read_duration("0"), 0u);
  EXPECT_EQ(read_duration("45"), 45u);
  EXPECT_EQ(read_duration("30s"), 30u);
  EXPECT_EQ(read_duration("90 min"), 5400u);
  EXPECT_EQ(read_duration("90m"), 5400u);
  EXPECT_EQ(read_duration("24h"), 86400u);
  EXPECT_EQ(read_duration("7d"), 604800u);
  for (const char* none : {"", "h", "-1h", "1.5h", "1 h 2", "1y", "0x3s", "99999999999999999999", "9999999d"})
    EXPECT_FALSE(read_duration(none)) << none;
}

}  // namespace
}  // namespace isthmus
