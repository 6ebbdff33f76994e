#include "config/sweep_config.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace isthmus::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SweepConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_ + "/sweeps");
    std::ofstream(folder_ + "/run.toml")
        << "[run]\nsteps = 30\n[model]\nhidden = 64\n[data]\ntrain = \"t\"\nvalidation = \"v\"\n"
           "[boundary]\nrank = 16\n[pipeline]\nlayout = \"auto\"\nstages = 4\n";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  tl::expected<SweepConfig, std::vector<Problem>> load(const std::string& text) const {
    std::ofstream(path_) << text;
    return load_sweep(path_);
  }
  // Without the folder.
  std::vector<std::string> problems(const std::string& text) const {
    const auto sweep = load(text);
    std::vector<std::string> texts;
    if (sweep) return texts;
    for (const auto& problem : sweep.error()) {
      const std::string all = problem.text();
      texts.push_back(all.starts_with(folder_) ? all.substr(folder_.size() + 1) : all);
    }
    return texts;
  }

  const std::string folder_ =
      std::filesystem::temp_directory_path().string() + "/isthmus-sweep-" + std::to_string(::getpid());
  const std::string path_ = folder_ + "/sweeps/s.toml";
};

const std::string kSweepHead = "base = \"../run.toml\"\nseeds = [3, 4]\n";

TEST_F(SweepConfigTest, ReadsWhichStageIsGoneAndWhen) {
  const auto sweep = load(
      kSweepHead + "[[row]]\nname = \"whole\"\n[[row]]\nname = \"gone\"\nabsent = {stage = 2, from = 5, steps = 7}\n");
  ASSERT_TRUE(sweep);
  EXPECT_FALSE(sweep->row[0].absence);
  EXPECT_EQ(sweep->row[1].absence, (Absence{2, 5, 7}));
  EXPECT_FALSE(sweep->row[1].absence->covers(4));
  EXPECT_TRUE(sweep->row[1].absence->covers(5));
  EXPECT_TRUE(sweep->row[1].absence->covers(11));
  EXPECT_FALSE(sweep->row[1].absence->covers(12));
}

TEST_F(SweepConfigTest, RefusesAnAbsenceThatNoRunCouldHave) {
  EXPECT_THAT(
      problems(
          kSweepHead +
          "[[row]]\nname = \"a\"\nabsent = {stage = 3, from = 31, steps = 7}\n[[row]]\nname = \"b\"\nabsent = {stage = "
          "0, from = 1}\n"
          "[[row]]\nname = \"c\"\nset = [\"pipeline.stages=2\"]\nabsent = {stage = 1, from = 1, steps = 1}\n"
          "[[row]]\nname = \"d\"\nset = [\"boundary.codec=learned\"]\nabsent = {stage = 1, from = 1, steps = 1}\n"),
      testing::UnorderedElementsAre(HasSubstr("stage 3 is absent, of 4 stages, expected 1 to 2"),
                                    HasSubstr("absent.from is 31, expected at most run.steps = 30"),
                                    HasSubstr("row[1].absent.stage is 0"), HasSubstr("steps"),
                                    HasSubstr("stage 1 is absent, of 2 stages, expected three stages at least"),
                                    HasSubstr("a stage is absent with boundary.codec = \"learned\"")));
}

TEST_F(SweepConfigTest, ResolvesEveryRowWithEverySeed) {
  const auto sweep = load(kSweepHead + R"(set = ["train.learning_rate=2e-3"]
links = [{bandwidth_mbps = 20, latency_ms = 7.5}]
reference = "dense"
baseline = "plain"
[[row]]
name = "plain"
set = ["boundary.codec=identity", "train.learning_rate=1e-3"]
[[row]]
name = "dense"
set = ["boundary.codec=identity"]
[[row]]
name = "k4"
set = ["boundary.rank=4"]
reference = "plain"
)");
  ASSERT_TRUE(sweep.has_value()) << sweep.error().front().text();
  EXPECT_EQ(sweep->name, "s");
  EXPECT_THAT(sweep->seeds, ElementsAre(3, 4));
  EXPECT_THAT(sweep->links, ElementsAre(SweepConfig::Link{20, 7.5}));
  EXPECT_EQ(sweep->baseline, 0u);
  ASSERT_EQ(sweep->row.size(), 3u);
  EXPECT_EQ(sweep->row[0].reference, 1u);
  EXPECT_EQ(sweep->row[1].reference, 1u);
  EXPECT_EQ(sweep->row[2].reference, 0u);
  EXPECT_EQ(sweep->row[2].runs[1].run.seed, 4u);
  EXPECT_EQ(sweep->row[2].runs[1].boundary.rank, 4u);
  EXPECT_EQ(sweep->row[2].runs[1].host.threads, 1u);
  EXPECT_EQ(sweep->row[1].runs[0].train.learning_rate, 2e-3);
  EXPECT_EQ(sweep->row[0].runs[0].train.learning_rate, 1e-3);  // a row's own goes before the sweep's
}

TEST_F(SweepConfigTest, TakesTheLinkOfTheRunIfItNamesNone) {
  const auto sweep = load(kSweepHead + "[[row]]\nname = \"a\"\nset = [\"link.latency_ms=9\"]\n");
  ASSERT_TRUE(sweep.has_value()) << sweep.error().front().text();
  EXPECT_THAT(sweep->links, ElementsAre(SweepConfig::Link{80, 9}));
  EXPECT_FALSE(sweep->baseline.has_value());
}

TEST_F(SweepConfigTest, SaysWhatIsMissing) {
  EXPECT_THAT(problems("set = []\n"), ElementsAre(HasSubstr("base is missing, expected a text of at most 4096 bytes"),
                                                  HasSubstr("seeds is missing, expected 1 to 100 whole numbers"),
                                                  HasSubstr("row is missing, expected 1 to 200 tables")));
  EXPECT_THAT(problems("base = \"../run.toml\"\nseeds = []\nrow = []\n"),
              ElementsAre(HasSubstr("sweeps/s.toml:2:9: seeds has 0 entries, expected 1 to 100 whole numbers"),
                          HasSubstr("row has 0 entries, expected 1 to 200 tables")));
}

TEST_F(SweepConfigTest, NamesEveryProblemOfTheFile) {
  EXPECT_THAT(
      problems("base = 3\nseeds = [1, 1, -1]\nlinks = [{bandwidth_mbps = 0, latency_ms = 1, jitter = 2}]\nreference = "
               "\"dens\"\nlink = []\n[[row]]\nname = \"a/b\"\n[[row]]\nname = \"dense\"\n"),
      ElementsAre("sweeps/s.toml:1:8: base is 3, expected a text of at most 4096 bytes",
                  "sweeps/s.toml:2:13: seed 1 is there twice, expected every seed once",
                  "sweeps/s.toml:2:16: seeds[2] is -1, expected a whole number, 0 to 9223372036854775807",
                  "sweeps/s.toml:3:28: links[0].bandwidth_mbps is 0, expected a number, 0.001 to 1000000",
                  HasSubstr("unknown key \"jitter\" in links[0]"),
                  "sweeps/s.toml:4:13: reference is \"dens\", and no row has that name, did you mean \"dense\"?",
                  HasSubstr("unknown key \"link\", did you mean \"links\"?"),
                  HasSubstr("row[0].name is \"a/b\", expected letters")));
}

TEST_F(SweepConfigTest, TellsARowsProblemWhereItsOverridesStand) {
  const std::string rows = "[[row]]\nname = \"a\"\n[[row]]\nname = \"b\"\nset = [\"boundary.rank=65\"]\n";
  EXPECT_THAT(problems(kSweepHead + rows),
              ElementsAre("sweeps/s.toml:7:7: row \"b\": boundary.rank is 65, expected at most model.hidden = 64"));
  // What every row has is told once, for the sweep.
  EXPECT_THAT(problems(kSweepHead + "set = [\"train.beta3=1\"]\n[[row]]\nname = \"a\"\n[[row]]\nname = \"b\"\n"),
              ElementsAre(HasSubstr("s.toml:3:7: unknown key \"beta3\" in train")));
  EXPECT_THAT(problems("base = \"none.toml\"\nseeds = [1]\n[[row]]\nname = \"a\"\n[[row]]\nname = \"b\"\n"),
              ElementsAre("sweeps/none.toml: there is no such file, expected a run file; configs/ holds examples"));
}

TEST_F(SweepConfigTest, RefusesRowsThatSeeOtherTokensOrComputeNone) {
  const std::string rows = "[[row]]\nname = \"a\"\n[[row]]\nname = \"b\"\n";
  EXPECT_THAT(
      problems(kSweepHead + rows + "set = [\"run.steps=20\"]\n"),
      ElementsAre(
          "sweeps/s.toml:7:7: rows \"a\" and \"b\" differ in run.steps: 30 / 20, expected equal tokens in every row"));
  EXPECT_THAT(problems(kSweepHead + rows + "set = [\"run.seed=2\", \"pipeline.threads=2\"]\n"),
              ElementsAre(HasSubstr("row[1].set sets run.seed, expected `seeds`"), HasSubstr("sets pipeline.threads")));
  EXPECT_THAT(problems(kSweepHead + rows + "set = [\"pipeline.device=emulated\"]\n"),
              ElementsAre(HasSubstr("expected cpu or cuda")));
}

}  // namespace
}  // namespace isthmus::config
