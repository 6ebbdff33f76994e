#include "base/done_set.h"

#include <gtest/gtest.h>

namespace isthmus {
namespace {

TEST(DoneSet, GrowsOnlyByWhatItDidNotHave) {
  DoneSet a(70), b(70);
  a.insert(MicrobatchId(3));
  b.insert(MicrobatchId(3));
  EXPECT_FALSE(a.merge(b));
  b.insert(MicrobatchId(69));
  EXPECT_TRUE(a.merge(b));
  EXPECT_TRUE(a.contains(MicrobatchId(69)));
  EXPECT_EQ(a.size(), 2u);
}

TEST(DoneSet, IsLessWithoutAnother) {
  DoneSet a(70), b(70);
  a.insert(MicrobatchId(3));
  a.insert(MicrobatchId(69));
  b.insert(MicrobatchId(3));
  b.insert(MicrobatchId(4));
  DoneSet rest(70);
  rest.insert(MicrobatchId(69));
  EXPECT_EQ(a.without(b), rest);
}

TEST(DoneSet, IsFullWhenEveryMicrobatchIsIn) {
  DoneSet set(65);
  for (std::uint32_t m = 0; m < 65; ++m) {
    EXPECT_FALSE(set.full());
    set.insert(MicrobatchId(m));
  }
  EXPECT_TRUE(set.full());
  EXPECT_TRUE(DoneSet(0).full());
}

TEST(DoneSet, CountsThoseBelow) {
  DoneSet set(130);
  for (const std::uint32_t m : {0u, 63u, 64u, 100u, 129u}) set.insert(MicrobatchId(m));
  EXPECT_EQ(set.size_below(0), 0u);
  EXPECT_EQ(set.size_below(64), 2u);
  EXPECT_EQ(set.size_below(101), 4u);
  EXPECT_EQ(set.size_below(500), 5u);
}

TEST(DoneSet, IgnoresMicrobatchesBeyondItsEnd) {
  DoneSet set(10);
  set.insert(MicrobatchId(10));
  EXPECT_EQ(set.size(), 0u);
  EXPECT_FALSE(set.contains(MicrobatchId(1000)));
}

TEST(DoneSet, RefusesBitsBeyondItsEnd) {
  EXPECT_TRUE(DoneSet::valid(64, {~std::uint64_t{0}}));
  EXPECT_TRUE(DoneSet::valid(3, {0b111}));
  EXPECT_FALSE(DoneSet::valid(3, {0b1000}));
  EXPECT_FALSE(DoneSet::valid(3, {}));
  EXPECT_FALSE(DoneSet::valid(3, {0, 0}));
}

}  // namespace
}  // namespace isthmus
