#include "record/signed_lines.h"

#include <gtest/gtest.h>

#include <vector>

namespace isthmus::record {
namespace {

class SignedLinesTest : public ::testing::Test {
 protected:
  // The first line and five of ours.
  std::vector<std::string> log() const {
    auto lines = SignedLines::begin(signer_);
    std::vector<std::string> written = {lines.first_line()};
    for (int i = 2; i <= 6; ++i) written.push_back(lines.line(fmt::format("text {}", i)));
    return written;
  }
  static std::string joined(const std::vector<std::string>& lines) {
    std::string file;
    for (const auto& line : lines) file += line + "\n";
    return file;
  }
  // What is wrong, by either way of looking: both have to name the same line.
  static LineFlaw flaw(const std::vector<std::string>& lines) {
    const auto all = check_lines(joined(lines), Signatures::kAll);
    const auto last = check_lines(joined(lines), Signatures::kLast);
    EXPECT_FALSE(all);
    EXPECT_FALSE(last);
    if (all || last) return {};
    EXPECT_EQ(all.error().line, last.error().line);
    EXPECT_EQ(all.error().what, last.error().what);
    return all.error();
  }
  const Identity signer_ = Identity::fresh();
};

TEST_F(SignedLinesTest, GivesBackWhatWasWrittenAndWhoseItIs) {
  for (const auto signatures : {Signatures::kAll, Signatures::kLast}) {
    const auto checked = check_lines(joined(log()), signatures);
    ASSERT_TRUE(checked);
    EXPECT_EQ(checked->signer, signer_.key());
    EXPECT_EQ(checked->number, 6u);
    EXPECT_EQ(checked->texts, (std::vector<std::string>{"text 2", "text 3", "text 4", "text 5", "text 6"}));
    EXPECT_FALSE(checked->torn);
  }
}

TEST_F(SignedLinesTest, GoesOnWhereAnEarlierWriterEnded) {
  auto lines = log();
  const auto before = check_lines(joined(lines), Signatures::kLast);
  ASSERT_TRUE(before);
  lines.push_back(SignedLines(signer_, before->number, before->last_hash).line("more"));
  const auto after = check_lines(joined(lines), Signatures::kAll);
  ASSERT_TRUE(after) << after.error().what;
  EXPECT_EQ(after->texts.back(), "more");
}

TEST_F(SignedLinesTest, NamesALineThatWasChangedWhateverWasChangedInIt) {
  for (const std::size_t at : {0u, 1u, 2u, 30u, 70u, 150u, 197u}) {
    for (std::size_t line = 2; line <= 6; ++line) {
      auto lines = log();
      lines[line - 1][at] = lines[line - 1][at] == '1' ? '7' : '1';
      EXPECT_EQ(flaw(lines).line, line) << at;
    }
  }
}

TEST_F(SignedLinesTest, NamesAFirstLineThatWasChangedOrDropped) {
  auto lines = log();
  lines[0].back() = lines[0].back() == '1' ? '7' : '1';
  EXPECT_EQ(flaw(lines).line, 1u);
  lines = log();
  lines.erase(lines.begin());
  EXPECT_EQ(flaw(lines).line, 1u);
}

TEST_F(SignedLinesTest, NamesALineThatWasDropped) {
  auto lines = log();
  lines.erase(lines.begin() + 2);
  EXPECT_EQ(flaw(lines).line, 3u);
  EXPECT_EQ(flaw(lines).what, "was dropped: the next one is line 4");
  lines.erase(lines.begin() + 2);
  EXPECT_EQ(flaw(lines).what, "was dropped, with those up to 4");
}

TEST_F(SignedLinesTest, NamesALineThatWasMoved) {
  auto lines = log();
  std::swap(lines[2], lines[4]);
  EXPECT_EQ(flaw(lines).line, 3u);
  EXPECT_EQ(flaw(lines).what, "was written as line 5; it was moved here, and line 3 is now line 5");
}

TEST_F(SignedLinesTest, NamesALineThatWasAdded) {
  auto lines = log();
  lines.insert(lines.begin() + 3, lines[1]);
  EXPECT_EQ(flaw(lines).line, 4u);
  EXPECT_EQ(flaw(lines).what, "was written as line 2; it was added a second time");

  // By somebody else, who knows all but the key.
  lines = log();
  const auto known = check_lines(joined({lines.begin(), lines.begin() + 3}), Signatures::kAll);
  ASSERT_TRUE(known);
  lines.insert(lines.begin() + 3, SignedLines(Identity::fresh(), 3, known->last_hash).line("mine"));
  EXPECT_EQ(flaw(lines).line, 4u);
  // At the end as well, where nothing after it could tell.
  lines.resize(4);
  EXPECT_EQ(flaw(lines).line, 4u);
}

TEST_F(SignedLinesTest, NamesALineOfAnotherLogOfTheSameSigner) {
  auto other = SignedLines::begin(signer_);
  std::vector<std::string> others = {other.first_line()};
  for (int i = 2; i <= 6; ++i) others.push_back(other.line("other"));
  auto lines = log();
  lines[3] = others[3];
  EXPECT_EQ(flaw(lines).line, 4u);
}

TEST_F(SignedLinesTest, ToleratesATornLastLineAndSaysSo) {
  const std::string file = joined(log());
  for (std::size_t cut = 1; cut < 220; cut += 9) {
    const auto checked = check_lines(file.substr(0, file.size() - cut), Signatures::kAll);
    ASSERT_TRUE(checked);
    EXPECT_TRUE(checked->torn || cut > file.size() - file.rfind('\n', file.size() - 2));
  }
}

TEST_F(SignedLinesTest, SurvivesAnyFile) {
  for (const char* file : {"", "\n", "\n\n\n", " \n", "1\n", "18446744073709551616 x\n", "1 2 3 4\n"})
    for (const auto signatures : {Signatures::kAll, Signatures::kLast}) {
      const auto checked = check_lines(file, signatures);
      EXPECT_EQ(checked.has_value(), std::string(file).empty());
    }
}

}  // namespace
}  // namespace isthmus::record
