#include "config/nearest.h"

#include <gtest/gtest.h>

namespace isthmus::config {
namespace {

const std::vector<std::string> kKnown = {"rank", "codec", "values", "learning_rate"};

TEST(Nearest, FindsAMisspeltWord) {
  EXPECT_EQ(nearest("rnak", kKnown), "rank");
  EXPECT_EQ(nearest("value", kKnown), "values");
  EXPECT_EQ(nearest("learn_rate", kKnown), "learning_rate");
}

TEST(Nearest, FindsTheWordItself) { EXPECT_EQ(nearest("codec", kKnown), "codec"); }

TEST(Nearest, FindsNothingFarAway) {
  EXPECT_EQ(nearest("zanzibar", kKnown), std::nullopt);
  EXPECT_EQ(nearest("rank", {}), std::nullopt);
  EXPECT_EQ(nearest(std::string(100000, 'r'), kKnown), std::nullopt);
}

TEST(Nearest, DoesNotTakeAShortWordForAnother) {
  EXPECT_EQ(nearest("", {"lr"}), std::nullopt);
  EXPECT_EQ(nearest("xy", {"lr"}), std::nullopt);
}

}  // namespace
}  // namespace isthmus::config
