#include "base/bytes.h"

#include <gtest/gtest.h>

#include <utility>

namespace isthmus {
namespace {

TEST(SharedBytesTest, NullIsEmptyAndLikeNullOnly) {
  const SharedBytes null;
  EXPECT_FALSE(null);
  EXPECT_TRUE(null == nullptr);
  EXPECT_TRUE(null->empty());
  EXPECT_TRUE((*null.part(0, 0)).empty());
  EXPECT_TRUE(share({}));
  EXPECT_FALSE(share({}) == null);
}

TEST(SharedBytesTest, APartNeedsNoCopyAndOutlivesTheWhole) {
  SharedBytes whole = share({1, 2, 3, 4, 5});
  const std::uint8_t* third = whole->data() + 2;
  const SharedBytes part = whole.part(2, 2).part(0, 1);
  whole = nullptr;
  EXPECT_EQ(part->data(), third);
  EXPECT_TRUE(part == share({3}));
  EXPECT_FALSE(part == share({4}));
}

TEST(SharedBytesTest, WhatWasMovedFromIsNull) {
  SharedBytes one = share({1, 2});
  SharedBytes other = std::move(one);
  EXPECT_TRUE(one == nullptr);  // NOLINT(bugprone-use-after-move): that is the question
  EXPECT_TRUE(one->empty());
  one = std::move(other);
  EXPECT_TRUE(other->empty());
  EXPECT_TRUE(one == share({1, 2}));
}

TEST(SharedBytesTest, JoinedPiecesAreInTheirOrder) {
  EXPECT_TRUE(joined({share({1, 2}), nullptr, share({3})}) == share({1, 2, 3}));
  const SharedBytes one = share({4});
  EXPECT_EQ(joined({one})->data(), one->data());
  EXPECT_TRUE(joined({})->empty());
}

}  // namespace
}  // namespace isthmus
