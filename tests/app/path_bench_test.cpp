#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "app/command_line_test.h"

namespace isthmus::app {
namespace {

using testing::HasSubstr;

class PathBenchTest : public CommandLineTest {
 protected:
  std::string write_case(const std::string& first_lines, int draws = 1) const {
    std::ofstream(folder_ + "/case.toml")
        << first_lines
        << "visits = 3\nskips_in_a_row = 1\nmicrobatches = 1\nforward_seconds = 1\nmicrobatch_bytes = 1000000\ndraws = "
        << draws
        << "\n[link]\nfastest_mbps = 100\nfastest_rtt_ms = 10\nslowest_mbps = 10\nslowest_rtt_ms = 100\n"
           "[[region]]\nname = \"a\"\nrtt_ms = []\n[[region]]\nname = \"b <c>\"\nrtt_ms = [70]\n";
    return folder_ + "/case.toml";
  }
};

TEST_F(PathBenchTest, PlansDrawsAndRepeatsItself) {
  const std::string file = write_case("stages = [2, 2, 2, 2]\n");
  const auto first = run({"bench", "paths", file, "--json", "--out", folder_ + "/plans.svg"});
  ASSERT_EQ(first.code, 0) << first.output;
  const auto json = nlohmann::json::parse(first.output),
             // A draw is planned like the case itself, which comes first.
      again = nlohmann::json::parse(run({"bench", "paths", write_case("stages = [2, 2, 2, 2]\n", 0), "--json"}).output);
  ASSERT_EQ(json["paths"].size(), 5u);
  EXPECT_EQ(json["draws"], 2);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(json["paths"][i]["step_seconds"], again["paths"][i]["step_seconds"]);
  EXPECT_LT(json["paths"][4]["ratio"], 1);
  const std::string chart = read(folder_ + "/plans.svg");
  EXPECT_THAT(chart, HasSubstr("skipping, search: "));
  EXPECT_THAT(chart, HasSubstr("b &lt;c&gt;"));
}

TEST_F(PathBenchTest, SaysWhatIsWrong) {
  const auto bad = run({"bench", "paths", write_case("stages = [2, 2]\n")});
  EXPECT_EQ(bad.code, 78);
  EXPECT_THAT(bad.output, HasSubstr("case.toml:2:10: visits is 3, expected at most the 2 stages"));
  const auto impossible = run({"bench", "paths", write_case("stages = [2, 2, 2, 2, 2, 2, 2, 2]\n")});
  EXPECT_EQ(impossible.code, 78);
  EXPECT_THAT(impossible.output, HasSubstr("case.toml:2:10: visits is 3, of 8 stages, expected as many that they leave "
                                           "out at most 3 between them, skips_in_a_row = 1 at a time"));
  const auto large = run({"bench", "paths", write_case("stages = [2, 2, 2, 2]\n"), "--scale", "1000"});
  EXPECT_EQ(large.code, 1);
  EXPECT_THAT(large.output, HasSubstr("expected at most 2000"));
}

}  // namespace
}  // namespace isthmus::app
