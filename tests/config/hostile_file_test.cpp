#include <gmock/gmock.h>

#include <random>

#include "base/times.h"
#include "config/load_run.h"
#include "config/run_text.h"

namespace isthmus::config {
namespace {

using testing::HasSubstr;

// A text is a run or a list of problems, and both can be printed; nothing else may happen.
bool is_run(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const auto run = parse_run(text, "run.toml", overrides);
  if (run) {
    EXPECT_EQ(parse_run(resolved_toml(*run), "resolved.toml").value_or(spec::RunConfig()), *run);
    EXPECT_FALSE(resolved_json(*run).empty());
    return true;
  }
  EXPECT_FALSE(run.error().empty());
  EXPECT_LE(run.error().size(), 101u);
  for (const auto& problem : run.error()) {
    EXPECT_FALSE(problem.what.empty());
    EXPECT_FALSE(problem.expected.empty());
    EXPECT_LT(problem.text().size(), 2000u);
  }
  return false;
}

TEST(HostileFile, MayEndAnywhere) {
  for (const std::string text : {kFull, kFleet})
    for (std::size_t length = 0; length < text.size(); length += kStride) is_run(text.substr(0, length));
}

TEST(HostileFile, MayHaveAnyByteDamaged) {
  const std::string text = kFull;
  std::size_t runs = 0;
  for (std::size_t i = 0; i < text.size(); i += kStride)
    for (const int bit : {0, 2, 7}) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      runs += is_run(flipped) ? 1 : 0;
    }
  EXPECT_GT(runs, times(100));  // comments, names, digits
  const std::string fleet = kFleet;
  for (std::size_t i = 0; i < fleet.size(); i += kStride) {
    std::string flipped = fleet;
    flipped[i] = static_cast<char>(flipped[i] ^ 1);
    is_run(flipped);
  }
}

TEST(HostileFile, MayHaveItsPiecesShuffled) {
  const std::string text = kFull;
  std::mt19937 random(20261124);
  const std::vector<std::string> words = {"[",
                                          "]",
                                          "{",
                                          "}",
                                          "=",
                                          ".",
                                          "\"",
                                          "'",
                                          "\"\"\"",
                                          "'''",
                                          "\n",
                                          "#",
                                          "[[",
                                          "]]",
                                          "1e999",
                                          "-0x1",
                                          "nan",
                                          "\xff",
                                          "\xef\xbb\xbf",
                                          std::string(1, '\0'),
                                          "\\u0000",
                                          "99999999999",
                                          "pipeline.stage",
                                          "[pipeline.stage]",
                                          "[[model]]",
                                          ","};
  for (std::uint64_t i = 0; i < times(3000); ++i) {
    std::string changed = text;
    for (unsigned n = random() % 4; n-- > 0;) changed.insert(random() % changed.size(), words[random() % words.size()]);
    const std::size_t from = random() % changed.size();
    if (i % 2 == 0) changed.erase(from, random() % 40);
    if (i % 3 == 0) changed.insert(random() % changed.size(), text.substr(from % text.size(), random() % 90));
    is_run(changed);
  }
}

TEST(HostileFile, MayBeAnyBytes) {
  std::mt19937 random(7);
  for (std::uint64_t i = 0; i < times(2000); ++i) {
    std::string bytes(random() % 300, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    EXPECT_FALSE(is_run(bytes));
    EXPECT_FALSE(is_run(kShortest, {"run.name=" + bytes}) && bytes.size() > 100);
    is_run(kShortest, {bytes});
  }
}

TEST(HostileFile, MayNestDeeply) {
  const auto times = [](int n, const std::string& s) {
    std::string out;
    for (int i = 0; i < n; ++i) out += s;
    return out;
  };
  // Deep enough to overflow a stack, were the parser or the destructor to follow.
  EXPECT_THAT(problems_of(times(400000, "a.") + "a = 1"),
              testing::ElementsAre(HasSubstr("run.toml:1:1: the line has 400000 dots")));
  EXPECT_THAT(problems_of("\n[" + times(400000, "a.") + "a]"),
              testing::ElementsAre(HasSubstr("run.toml:2:1: the line has 400000 dots")));
  EXPECT_FALSE(is_run("a = " + times(500000, "[")));
  EXPECT_FALSE(is_run("a = " + times(400000, "{a=")));
  EXPECT_FALSE(is_run("a = " + times(200, "[") + times(200, "]")));
  // Everything that is allowed, at once.
  const std::string keys = times(60, "a.") + "a";
  EXPECT_FALSE(is_run("[" + keys + "]\n" + times(120, keys + " = [{\n") + keys + " = 1" + times(120, "}]\n")));
  EXPECT_FALSE(is_run("[" + keys + "]\n" + keys + " = " + times(125, "[\n{" + keys + " = ") + "1" + times(125, "}]")));
}

TEST(HostileFile, MayHaveHugeTexts) {
  const std::string digits(900000, '1');
  EXPECT_FALSE(is_run(with(kFull, "0:3", digits + ":" + digits)));
  EXPECT_FALSE(is_run(with(kFull, "\"full\"", '"' + digits + '"')));
  EXPECT_FALSE(is_run(with(kFull, "seed = 7", "seed = " + digits)));
  EXPECT_FALSE(is_run(with(kFull, "3.7e-4", "0." + digits)));
  EXPECT_FALSE(is_run(with(kFull, "subspace", digits)));
  EXPECT_FALSE(is_run(with(kFull, "rank = 12", digits + " = 12")));
  EXPECT_FALSE(is_run(with(kFull, "data/train.bin", digits)));
}

TEST(HostileFile, MayHaveManyTables) {
  std::string text = kShortest;
  for (int i = 0; i < 20000; ++i) text += "[[pipeline.stage]]\nlayers = \"0:8\"\n";
  EXPECT_THAT(problems_of(text),
              testing::ElementsAre(HasSubstr("pipeline.stage has 20001 entries, expected at most 1024 tables")));
}

TEST(HostileFile, MayNotBeLongerThanAMebibyte) {
  EXPECT_THAT(problems_of(std::string((1 << 20) + 1, '\n')),
              testing::ElementsAre(HasSubstr("expected a run file of at most 1 MiB")));
}

}  // namespace
}  // namespace isthmus::config
