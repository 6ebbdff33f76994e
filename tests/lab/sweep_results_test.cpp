#include "lab/sweep_results.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "config/load_run.h"

namespace isthmus::lab {
namespace {

// Two rows of emulated runs of 40 steps; the losses are the tests'.
class SweepResultsTest : public ::testing::Test {
 protected:
  SweepResultsTest() {
    sweep_.name = "two";
    sweep_.seeds = {1, 2};
    sweep_.links = {{}};
    for (const char* name : {"reference", "row"}) sweep_.row.push_back({name, {}, 0, {run_, run_}});
    runs_ = {{constant(2), constant(4)}, {constant(2), constant(4)}};
  }
  LocalRunResult constant(double loss) const {
    LocalRunResult result;
    for (std::uint64_t step = 1; step <= run_.run.steps; ++step) result.curve.push_back({.step = step, .loss = loss});
    result.stages.resize(run_.pipeline.stage.empty() ? run_.pipeline.stages : run_.pipeline.stage.size());
    return result;
  }
  std::vector<SweepRow::TrainingGap> gaps() const { return sweep_results(sweep_, runs_).rows[1].training_gaps; }

  const spec::RunConfig run_ = *config::load_run(ISTHMUS_SOURCE_DIR "/configs/emulated.toml", {"run.steps=40"});
  config::SweepConfig sweep_;
  SweepRuns runs_;
};

TEST_F(SweepResultsTest, PutsEveryStepIntoOneStretch) {
  const auto all = gaps();
  ASSERT_EQ(all.size(), 16u);
  std::uint64_t next = 1;
  for (const auto& gap : all) {
    EXPECT_EQ(gap.first_step, next);
    EXPECT_GE(gap.last_step, gap.first_step + 1);  // 40 steps in sixteen: two or three
    EXPECT_LE(gap.last_step, gap.first_step + 2);
    next = gap.last_step + 1;
    EXPECT_EQ(gap.seeds, 2u);
    EXPECT_EQ(gap.percent.mean, 0);
  }
  EXPECT_EQ(next, 41u);
  EXPECT_TRUE(sweep_results(sweep_, runs_).rows[0].training_gaps.empty());
}

TEST_F(SweepResultsTest, ComparesMeansOfAStretchSeedBySeed) {
  // Steps 1 and 2 are the first stretch.
  runs_[1][0]->curve[0].loss = 2.2;
  runs_[1][0]->curve[1].loss = 2.6;
  runs_[1][1]->curve[0].loss = 3.6;
  const auto first = gaps()[0].percent;
  EXPECT_NEAR(first.mean, (20 - 5) / 2.0, 1e-9);
  EXPECT_NEAR(first.least, -5, 1e-9);
  EXPECT_NEAR(first.most, 20, 1e-9);
  EXPECT_EQ(gaps()[1].percent.mean, 0);
}

TEST_F(SweepResultsTest, LeavesOutStepsThatWereBad) {
  runs_[1][0]->curve[0] = {.step = 1, .loss = std::numeric_limits<double>::quiet_NaN(), .skipped = true};
  runs_[0][0]->curve[2] = {.step = 3, .loss = 1e9, .skipped = true};
  for (const auto& gap : gaps()) EXPECT_EQ(gap.percent.mean, 0) << gap.first_step;
  // Nothing is left of the first stretch of this seed.
  runs_[1][0]->curve[1].skipped = true;
  EXPECT_EQ(gaps()[0].seeds, 1u);
  EXPECT_EQ(gaps()[0].percent.mean, 0);
  // What was trained on and was no number is a run that has diverged.
  runs_[1][1]->curve[5].loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(results_table(sweep_results(sweep_, runs_)).find("diverged"), std::string::npos);
}

TEST_F(SweepResultsTest, ComparesTheSeedsThatBothHave) {
  runs_[0][1].reset();
  runs_[1][0]->curve[0].loss = 2.2;
  EXPECT_EQ(gaps()[0].seeds, 1u);
  EXPECT_NEAR(gaps()[0].percent.mean, 5, 1e-9);
  EXPECT_NE(results_table(sweep_results(sweep_, runs_)).find(" +5.00 |"), std::string::npos);
  runs_[0][0].reset();
  EXPECT_EQ(gaps()[0].seeds, 0u);
  EXPECT_EQ(results_table(sweep_results(sweep_, runs_)).find("nan"), std::string::npos);
}

}  // namespace
}  // namespace isthmus::lab
