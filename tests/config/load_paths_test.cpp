#include "config/load_paths.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace isthmus::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class LoadPathsTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(file_); }

  std::vector<std::string> problems(const std::string& text) const {
    std::ofstream(file_) << text;
    const auto paths = load_paths(file_);
    std::vector<std::string> texts;
    if (paths) return texts;
    for (const auto& problem : paths.error()) texts.push_back(problem.text().substr(file_.size() + 1));
    return texts;
  }

  const std::string file_ =
      std::filesystem::temp_directory_path().string() + "/isthmus-paths-" + std::to_string(::getpid()) + ".toml";
};

const std::string kHead = "stages = [2, 1]\nvisits = 2\nmicrobatches = 1\nforward_seconds = 1\nmicrobatch_bytes = 1\n";
const std::string kLink = "[link]\nfastest_mbps = 100\nfastest_rtt_ms = 10\nslowest_mbps = 10\nslowest_rtt_ms = 100\n";
const std::string kRegions = "[[region]]\nname = \"a\"\nrtt_ms = []\n[[region]]\nname = \"b\"\nrtt_ms = [7]\n";

TEST_F(LoadPathsTest, ReadsThePublishedCase) {
  const auto paths = load_paths(ISTHMUS_SOURCE_DIR "/configs/paths/skippipe-20.toml");
  ASSERT_TRUE(paths.has_value()) << paths.error().front().text();
  EXPECT_EQ(paths->name, "skippipe-20");
  EXPECT_THAT(paths->stages, ElementsAre(5, 3, 3, 3, 3, 3));
  EXPECT_EQ(paths->visits, 4u);
  EXPECT_EQ(paths->region.size(), 12u);
  EXPECT_EQ(paths->region[11].rtt_ms[7], 275);
  EXPECT_EQ(paths->link.overhead_seconds, .35);
}

TEST_F(LoadPathsTest, ToleratesWhatIsLeftOut) { EXPECT_THAT(problems(kHead + kLink + kRegions), ElementsAre()); }

TEST_F(LoadPathsTest, SaysEveryProblemAtItsPlace) {
  EXPECT_THAT(
      problems(
          "stages = [2, 0]\nvisits = \"x\"\nmicrobatches = 1\nforward_seconds = -1\nmicrobatch_bytes = 1\nvisit = 3\n" +
          kLink + kRegions),
      ElementsAre("1:14: stages[1] is 0, expected a whole number, 1 to 1000",
                  "2:10: visits is \"x\", expected a whole number, 1 to 64",
                  "4:19: forward_seconds is -1, expected a number, 1e-06 to 3600",
                  "6:1: unknown key \"visit\", did you mean \"visits\"?"));
  EXPECT_THAT(problems("stages = [2, 1]\nvisits = 3\nmicrobatches = 1\nforward_seconds = 1\nmicrobatch_bytes = 1\n"
                       "[link]\nfastest_mbps = 1\nfastest_rtt_ms = 10\nslowest_mbps = 10\nslowest_rtt_ms = "
                       "10\n[[region]]\nname = \"a\"\nrtt_ms = [1]\n"),
              ElementsAre("2:10: visits is 3, expected at most the 2 stages",
                          "9:16: link.slowest_mbps is 10, expected at most link.fastest_mbps = 1",
                          "10:18: link.slowest_rtt_ms is 10, expected above link.fastest_rtt_ms = 10",
                          "13:10: region[0].rtt_ms has 1 entries, expected 0, one for each region above"));
  EXPECT_THAT(
      problems("stages = [1000, 1000, 1]\nvisits = 2\nmicrobatches = 1\nforward_seconds = 1\nmicrobatch_bytes = 1\n" +
               kLink + kRegions),
      ElementsAre("1:10: the stages have 2001 nodes, expected at most 2000"));
  EXPECT_THAT(problems("stages = 1"), testing::Contains(HasSubstr("link is missing")));
}

std::string with(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

TEST_F(LoadPathsTest, RefusesWhatContradictsItself) {
  const std::string six = with(kHead, "[2, 1]", "[2, 1, 1, 1, 1, 1]");
  EXPECT_THAT(problems("skips_in_a_row = 1\n" + six + kLink + kRegions),
              ElementsAre("3:10: visits is 2, of 6 stages, expected as many that they leave out at most 2 between "
                          "them, skips_in_a_row = 1 at a time"));
  EXPECT_THAT(problems("end = \"last_stage\"\n" + with(six, "visits = 2", "visits = 1") + kLink + kRegions),
              ElementsAre(HasSubstr("3:10: visits is 1, expected at least 2")));
  EXPECT_THAT(problems(kHead + kLink + with(kRegions, "\"b\"", "\"a\"")),
              ElementsAre("15:8: a second region is called \"a\", expected another name than that of region[0]"));
  EXPECT_THAT(problems(kHead + kLink + with(kRegions, "\"b\"", "\"b\\n\"")),
              ElementsAre(HasSubstr("region[1].name is \"b\\n\", expected printable characters")));
}

TEST_F(LoadPathsTest, RefusesWhatTakesAnAgeOrTooMuchMemory) {
  EXPECT_THAT(problems(kHead + with(kLink, "slowest_mbps = 10", "slowest_mbps = 1e-12") + kRegions),
              ElementsAre("9:16: link.slowest_mbps is 1e-12, expected a number, 0.001 to 1000000"));
  EXPECT_THAT(
      problems(with(with(kHead, "[2, 1]", "[1000, 1]"), "microbatches = 1", "microbatches = 1000") + kLink + kRegions),
      ElementsAre("3:16: 1000 microbatches at each of 1000 nodes make 2000000 visits, expected at most 1000000"));
  EXPECT_THAT(
      problems(with(with(kHead, "[2, 1]", "[1000, 1]"), "microbatch_bytes = 1", "microbatch_bytes = 1000000000000") +
               kLink + kRegions),
      ElementsAre(HasSubstr("3:16: all visits one after the other take 3.2e+09 s, expected at most 1e+09 s")));
}

// The other end of a pair cannot be compared with one that is not there.
TEST_F(LoadPathsTest, SaysNothingOfWhatItCannotRead) {
  EXPECT_THAT(problems(kHead + with(kLink, "fastest_mbps = 100\n", "") + kRegions),
              ElementsAre(HasSubstr("link.fastest_mbps is missing")));
  EXPECT_THAT(problems(kHead + with(kLink, "fastest_rtt_ms = 10", "fastest_rtt_ms = \"x\"") + kRegions),
              ElementsAre(HasSubstr("link.fastest_rtt_ms is \"x\"")));
}

}  // namespace
}  // namespace isthmus::config
