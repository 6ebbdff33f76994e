// What is wrong with a run, and what follows from it.
#include "scheduler/coordinator/verdicts.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>

namespace isthmus::coordinator {
namespace {

class VerdictsTest : public ::testing::Test {
 protected:
  static protocol::Plan plan(std::uint64_t steps) {
    protocol::Plan plan;
    plan.stages = {{0, 1, 3, 4}};
    plan.steps = steps;
    plan.microbatches = 2;
    plan.evaluation_microbatches = 1;
    plan.tokens_per_microbatch = 10;
    return plan;
  }
  static LogRecord step(std::uint64_t number, bool bad, double loss = 2) {
    CommitRecord record;
    record.commit.step = StepId(number);
    record.commit.apply = !bad;
    record.figures.loss = loss;
    record.figures.tokens = 20;
    record.figures.grad_norm = 1;
    if (bad) record.reason = "its loss is too far above the mean";
    return record;
  }
  static LogRecord evaluation(std::uint64_t number, double loss) {
    CommitRecord record;
    record.commit.step = StepId(number);
    record.figures.validation_loss = loss;
    return record;
  }
  // Steps 1 … `steps`, of which the last `bad` were bad.
  static std::string end_of(std::uint64_t steps, std::uint64_t bad, double loss = 2, double validation = 2) {
    Verdicts verdicts(plan(steps), {});
    verdicts.apply(InitRecord{0});
    for (std::uint64_t s = 1; s <= steps; ++s) verdicts.apply(step(s, s + bad > steps, s == steps ? loss : 2));
    verdicts.apply(evaluation(steps + 1, validation));
    return verdicts.objection_to_end();
  }
};

TEST_F(VerdictsTest, ARunEndsWellAlsoIfASpikeWasSkippedAtItsEnd) {
  EXPECT_EQ(end_of(6, 0), "");
  EXPECT_EQ(end_of(100, 1), "");
  EXPECT_EQ(end_of(100, 3), "");
}

TEST_F(VerdictsTest, ARunWhoseLastStepsWereAllBadDoesNotEndWell) {
  EXPECT_NE(end_of(6, 5).find("last 5 steps were all bad"), std::string::npos) << end_of(6, 5);
  EXPECT_NE(end_of(100, 4).find("last 4 steps were all bad"), std::string::npos) << end_of(100, 4);
  EXPECT_NE(end_of(4, 2).find("last 2 steps"), std::string::npos) << end_of(4, 2);
}

TEST_F(VerdictsTest, ARunThatEndsWithALossThatIsNotFiniteDoesNotEndWell) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(end_of(100, 0, nan).find("last loss is not finite"), std::string::npos);
  EXPECT_NE(end_of(100, 0, 2, nan).find("validation loss is not finite"), std::string::npos);
  // What it went back from does not count.
  Verdicts verdicts(plan(10), {});
  verdicts.apply(step(1, true, nan));
  verdicts.apply(RollbackRecord{0, "", {}});
  EXPECT_EQ(verdicts.objection_to_end(), "");
}

TEST_F(VerdictsTest, NamesNobodyForWhatIsOddBecauseStepsAreBad) {
  for (const bool bad : {false, true}) {
    Decisions decisions(plan(100));
    Verdicts verdicts(plan(100), {});
    const auto apply = [&](const LogRecord& record) {
      decisions.apply(record);
      verdicts.apply(record);
    };
    apply(InitRecord{0});
    for (std::uint32_t r = 0; r < 3; ++r)
      apply(AdmitRecord{{PeerId(r + 1), SessionId(100 + r), StageId(0), ReplicaId(r), {}, {}}, 0});
    for (std::uint64_t s = 1; s <= 5; ++s) apply(step(s, bad && s == 4));
    std::size_t named = 0;
    for (const std::uint32_t by : {0, 1}) {
      protocol::Report report;
      report.session = SessionId(100 + by);
      report.offences = {{SessionId(102), 4, "noise"}};
      named += verdicts.offenders(decisions, report).size();
    }
    EXPECT_EQ(named, bad ? 0u : 1u);
  }
}

TEST_F(VerdictsTest, WhoCannotReachEachOtherIsToldOnceWhereNeitherCanGo) {
  protocol::Plan two = plan(100);
  two.stages = {{0, 1, 1, 4}, {1, 2, 1, 4}};
  Decisions decisions(two);
  Verdicts verdicts(two, {});
  decisions.apply(InitRecord{0});
  for (std::uint32_t s = 0; s < 2; ++s)
    decisions.apply(AdmitRecord{
        {PeerId(s + 1), SessionId(100 + s), StageId(s), ReplicaId(0), {}, {fmt::format("tcp://10.0.0.{}:1", s), ""}},
        0});
  const SessionId one(100), other(101);
  EXPECT_FALSE(Verdicts::unreachable(decisions, one, other)) << "each is the last of its stage";
  const auto told = verdicts.stuck(decisions, one, other);
  ASSERT_TRUE(told);
  EXPECT_EQ(told->peer, PeerId(1));
  EXPECT_EQ(told->other, PeerId(2));
  EXPECT_EQ(told->stage, StageId(1));
  EXPECT_EQ(told->endpoint, "tcp://10.0.0.1:1");
  EXPECT_FALSE(verdicts.stuck(decisions, one, other));
  EXPECT_FALSE(verdicts.stuck(decisions, other, one)) << "the same two";
  EXPECT_FALSE(verdicts.stuck(decisions, one, SessionId(7))) << "of no member";
  // A new life may be stuck anew.
  verdicts.forget(other);
  EXPECT_TRUE(verdicts.stuck(decisions, other, one));
  // Where one has a sibling it goes, and nobody waits.
  decisions.apply(AdmitRecord{{PeerId(3), SessionId(102), StageId(1), ReplicaId(1), {}, {}}, 0});
  ASSERT_TRUE(Verdicts::unreachable(decisions, one, other));
  EXPECT_EQ(Verdicts::unreachable(decisions, one, other)->member.session, other);
}

}  // namespace
}  // namespace isthmus::coordinator
