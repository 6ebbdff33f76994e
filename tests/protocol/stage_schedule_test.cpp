#include "protocol/stage_schedule.h"

#include <gtest/gtest.h>

namespace isthmus::protocol {
namespace {

constexpr auto F = Operation::kForward;
constexpr auto I = Operation::kInputGradient;
constexpr auto W = Operation::kWeightGradient;

Task task(Operation operation, std::uint32_t m) { return {operation, MicrobatchId(m)}; }

TEST(StageSchedule, PutsInputGradientsBeforeForwardsBeforeWeights) {
  StageSchedule schedule(ScheduleKind::kDeep, 8);
  for (std::uint32_t m : {2u, 0u, 1u}) schedule.forward_ready(MicrobatchId(m), true);
  EXPECT_EQ(schedule.next(), task(F, 0));
  EXPECT_EQ(schedule.next(), task(F, 1));
  schedule.gradient_ready(MicrobatchId(0));
  EXPECT_EQ(schedule.next(), task(I, 0));
  schedule.input_gradient_done(MicrobatchId(0));
  EXPECT_EQ(schedule.next(), task(F, 2));
  EXPECT_EQ(schedule.next(), task(W, 0));
  EXPECT_EQ(schedule.next(), std::nullopt);
}

TEST(StageSchedule, HoldsForwardsBackWithoutACredit) {
  StageSchedule schedule(ScheduleKind::kDeep, 1);
  schedule.forward_ready(MicrobatchId(0), true);
  schedule.forward_ready(MicrobatchId(1), true);
  EXPECT_EQ(schedule.next(), task(F, 0));
  EXPECT_EQ(schedule.next(), std::nullopt);
  EXPECT_TRUE(schedule.waits_for_credit());
  schedule.gradient_ready(MicrobatchId(0));
  EXPECT_EQ(schedule.next(), task(I, 0));
  EXPECT_EQ(schedule.next(), std::nullopt);
  schedule.input_gradient_done(MicrobatchId(0));
  EXPECT_EQ(schedule.next(), task(F, 1));
}

TEST(StageSchedule, LetsEvaluationPassWithoutACredit) {
  StageSchedule schedule(ScheduleKind::kDeep, 1);
  schedule.forward_ready(MicrobatchId(0), true);
  schedule.forward_ready(MicrobatchId(9), false);
  EXPECT_EQ(schedule.next(), task(F, 0));
  EXPECT_EQ(schedule.next(), task(F, 9));
  EXPECT_EQ(schedule.in_flight(), 1u);
}

TEST(StageSchedule, NeverPartsInputAndWeightGradientsInOneForwardOneBackward) {
  StageSchedule schedule(ScheduleKind::kOneForwardOneBackward, 4);
  for (std::uint32_t m = 0; m < 3; ++m) schedule.forward_ready(MicrobatchId(m), true);
  EXPECT_EQ(schedule.next(), task(F, 0));
  schedule.gradient_ready(MicrobatchId(0));
  EXPECT_EQ(schedule.next(), task(I, 0));
  schedule.input_gradient_done(MicrobatchId(0));
  schedule.gradient_ready(MicrobatchId(1));
  EXPECT_EQ(schedule.next(), task(W, 0));
}

TEST(StageSchedule, CancelsOnlyWhatHasNotStarted) {
  StageSchedule schedule(ScheduleKind::kDeep, 4);
  schedule.forward_ready(MicrobatchId(0), true);
  EXPECT_TRUE(schedule.cancel_forward(MicrobatchId(0)));
  EXPECT_FALSE(schedule.cancel_forward(MicrobatchId(0)));
  EXPECT_EQ(schedule.next(), std::nullopt);
}

}  // namespace
}  // namespace isthmus::protocol
