#include <gtest/gtest.h>

#include "scheduler/coordinator/decisions.h"

namespace isthmus::coordinator {
namespace {

class WholeVersion : public ::testing::Test {
 protected:
  static protocol::Plan two_stages() {
    protocol::Plan plan;
    for (std::uint32_t s = 0; s < 2; ++s) plan.stages.push_back({s, s + 1, 1, 2});
    plan.steps = 100;
    plan.microbatches = 1;
    return plan;
  }
  WholeVersion() { decisions_.apply(InitRecord{}); }
  void written(std::uint32_t stage, std::uint64_t version) {
    decisions_.apply(CheckpointRecord{StageId(stage), version});
  }
  Decisions decisions_{two_stages()};
};

TEST_F(WholeVersion, IsTheNewestThatEveryStageHasWritten) {
  EXPECT_EQ(decisions_.whole, 0u);
  written(0, 5);
  EXPECT_EQ(decisions_.whole, 0u);
  written(1, 5);
  EXPECT_EQ(decisions_.whole, 5u);
  written(1, 10);
  written(1, 15);
  written(0, 10);
  EXPECT_EQ(decisions_.whole, 10u);
}

// Its disk was full in between: 10 is not there, though its newest is 15.
TEST_F(WholeVersion, IsNoneThatAStageLeftOut) {
  for (const std::uint32_t stage : {0u, 1u}) written(stage, 5);
  written(0, 10);
  written(1, 15);
  EXPECT_EQ(decisions_.checkpointed_by_all(), 10u);
  EXPECT_EQ(decisions_.whole, 5u);
  written(0, 15);
  EXPECT_EQ(decisions_.whole, 15u);
}

TEST_F(WholeVersion, GoesBackWithTheRun) {
  for (const std::uint64_t version : {5u, 10u})
    for (const std::uint32_t stage : {0u, 1u}) written(stage, version);
  written(0, 15);
  RollbackRecord back;
  back.version = 10;
  decisions_.apply(back);
  written(1, 15);
  EXPECT_EQ(decisions_.whole, 10u) << "one of them is of a past that did not happen";
}

}  // namespace
}  // namespace isthmus::coordinator
