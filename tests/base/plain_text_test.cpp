#include "base/plain_text.h"

#include <gtest/gtest.h>

#include <string>

namespace isthmus {
namespace {

TEST(PlainText, IsWellFormedAndShowsWhatItHolds) {
  for (const char* text : {"", "Zo\xc3\xab's tower, 2nd", "\xe6\x9c\xba", "\xf0\x9f\x96\xa5"})
    EXPECT_TRUE(is_plain_text(text)) << text;
}

TEST(PlainText, IsNothingThatHidesOrMovesTheTextAroundIt) {
  for (const char* text : {"a\nb", "\x1b[2J", "a\x7f", "\xc2\x85",
                           "\xe2\x80\xae"
                           "gpj",
                           "\xe2\x81\xa6"})
    EXPECT_FALSE(is_plain_text(text)) << text;
  EXPECT_FALSE(is_plain_text(std::string(1, '\0')));
}

TEST(PlainText, IsNothingThatIsCutShortOrLongerThanItNeedsToBe) {
  for (const char* text :
       {"\xc3", "\xe6\x9c", "\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "\xc3("})
    EXPECT_FALSE(is_plain_text(text)) << text;
}

TEST(PlainText, IsMadeOfAnyText) {
  EXPECT_EQ(plain_text("a\nb\tc\x1b\xff\xc2\x85", 100), "a b c????");
  EXPECT_EQ(plain_text("日本", 5), "日");
  EXPECT_EQ(plain_text("日本", 2), "");
  for (int a = 0; a < 256; ++a)
    for (int b = 0; b < 256; ++b)
      EXPECT_TRUE(is_plain_text(plain_text(std::string{static_cast<char>(a), static_cast<char>(b), 'x', 'y'}, 3)));
}

}  // namespace
}  // namespace isthmus
