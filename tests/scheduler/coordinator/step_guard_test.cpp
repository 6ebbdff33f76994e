#include "scheduler/coordinator/step_guard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "base/counter_random.h"

namespace isthmus::coordinator {
namespace {

constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Takes steps as a coordinator does and keeps which were bad.
struct Training {
  explicit Training(StepGuard::Options options = {}) : guard(options) {}

  // Why the next step was skipped; empty: it was not.
  std::string take(double loss, double grad_norm = 1, bool finite = true, const std::vector<StageId>& absent = {}) {
    const StepId step(++taken);
    const StepFigures figures{loss, 10, {}, grad_norm, 0};
    CommitRecord record{{step, 0, EpochId(step.value), 1, true, absent},
                        {},
                        {},
                        figures,
                        guard.objection(step, figures, finite, absent)};
    record.commit.apply = record.reason.empty();
    decide(record);
    if (!record.reason.empty()) bad.push_back(step.value);
    return record.reason;
  }
  // A loss of about 3 and a norm of about 1, as they scatter from step to step.
  std::string usual() { return take(3 + .03 * scatter(0), 1 + .06 * scatter(1)); }
  // Of the next step, the first and the second figure.
  double scatter(std::uint64_t figure) const { return random.normal(2 * taken + figure); }
  void usual(int steps) {
    for (int i = 0; i < steps; ++i) EXPECT_EQ(usual(), "") << "step " << taken;
  }
  void decide(const LogRecord& record) {
    log.push_back(record);
    guard.apply(record);
    if (const auto* rollback = std::get_if<RollbackRecord>(&record)) taken = rollback->version;
  }

  StepGuard guard;
  std::uint64_t taken = 0;
  std::vector<std::uint64_t> bad;
  std::vector<LogRecord> log;
  CounterRandom random{1, "losses"};
};

TEST(StepGuard, SkipsWhatStandsOut) {
  struct Case {
    const char* name;
    double loss, grad_norm;
    bool finite;
    const char* reason;
  };
  for (const Case& c : {Case{"usual", 3, 1, true, ""}, Case{"a little more", 3.1, 1.2, true, ""},
                        Case{"far below", 0.1, 0.001, true, ""}, Case{"loss", 1e9, 1, true, "the loss 1e+09 is"},
                        Case{"norm", 3, 41, true, "the gradient's norm 41 is"},
                        Case{"loss not a number", kNoNumber, 1, true, "the loss is not finite"},
                        Case{"loss infinite", kInfinity, 1, true, "the loss is not finite"},
                        Case{"norm not a number", 3, kNoNumber, true, "the gradient is not finite"},
                        Case{"norm infinite", 3, kInfinity, true, "the gradient is not finite"},
                        Case{"a stage says so", 3, 1, false, "the gradient is not finite"}}) {
    Training run;
    run.usual(128);
    const std::string reason = run.take(c.loss, c.grad_norm, c.finite);
    EXPECT_TRUE(*c.reason ? reason.starts_with(c.reason) : reason.empty()) << c.name << ": " << reason;
    if (c.finite && std::isfinite(c.loss + c.grad_norm) && *c.reason) {
      EXPECT_TRUE(reason.ends_with(" standard deviations above the mean of the last 128 steps")) << reason;
    }
    EXPECT_EQ(run.usual(), "") << c.name;
  }
}

TEST(StepGuard, DoesNotLearnFromBadSteps) {
  Training run;
  run.usual(128);
  for (int i = 0; i < 50; ++i) {
    EXPECT_NE(run.take(i % 3 == 0 ? kNoNumber : 1e9, i % 3 == 1 ? kInfinity : 1), "") << i;
    run.usual(3);
  }
  EXPECT_NE(run.take(6), "");
}

TEST(StepGuard, JudgesNothingBeforeHalfAWindowIsThere) {
  Training run;
  for (int i = 0; i < 63; ++i) EXPECT_EQ(run.take(i % 9 == 8 ? 100 : 3, 1), "");
  EXPECT_EQ(run.take(kNoNumber), "the loss is not finite");
  Training longer;
  longer.usual(63);
  EXPECT_EQ(longer.take(4), "");
  EXPECT_NE(longer.take(40), "");
}

TEST(StepGuard, TakesOnlyWhatIsNotFiniteForBadWithoutSigmas) {
  Training run({.sigmas = 0});
  run.usual(128);
  EXPECT_EQ(run.take(1e9, 1e9), "");
  EXPECT_EQ(run.take(kNoNumber), "the loss is not finite");
}

// Of figures that do not differ at all everything else would be infinitely many deviations away.
TEST(StepGuard, LetsStepsPassThatHardlyDiffer) {
  for (const double norm : {0.0, 1.0}) {
    Training run;
    for (int i = 0; i < 200; ++i) run.take(3, norm);
    EXPECT_EQ(run.take(3.01, norm), "");
    EXPECT_EQ(run.bad.size(), 0u);
    EXPECT_NE(run.take(4, norm), "");
  }
}

TEST(StepGuard, LetsARealCurvePass) {
  struct Case {
    const char* name;
    std::function<double(double)> loss, norm;
  };
  const Case cases[] = {
      {"falling, the norm rises in warm-up and then falls", [](double t) { return 1.2 + 4.3 * std::exp(-t / 60); },
       [](double t) { return t < 20 ? 0.5 + 0.2 * t : 4.5 * std::exp(-(t - 20) / 50) + .4; }},
      {"a slow drift up", [](double t) { return 3 + .002 * t; }, [](double t) { return 1 + .005 * t; }},
      {"a plateau", [](double) { return 2.0; }, [](double) { return 0.3; }}};
  for (const auto& c : cases)
    for (const double scatter : {0.0, .01, .06}) {
      Training run;
      for (int t = 0; t < 600; ++t) {
        const double loss = c.loss(t) * (1 + scatter * run.scatter(0)),
                     norm = c.norm(t) * (1 + scatter * run.scatter(1));
        EXPECT_EQ(run.take(loss, norm), "") << c.name << ", step " << t;
      }
    }
}

// After patience is at an end it is the level that has changed; with none it takes as many as are enough to judge by.
TEST(StepGuard, GetsUsedToANewLevel) {
  for (const std::uint32_t patience : {8u, 0u}) {
    Training run({.patience = patience});
    run.usual(200);
    for (int i = 0; i < 300; ++i) run.take(5, 1);
    EXPECT_EQ(run.bad.size(), patience > 0 ? 8u : 64u);
    EXPECT_EQ(run.guard.streak(), 0u);
    EXPECT_NE(run.take(50), "");  // and judges by it
  }
}

TEST(StepGuard, CountsBadStepsInARowAndKnowsWhatTheirWeightsWere) {
  Training run;
  EXPECT_EQ(run.guard.trained(), StepId(0));
  run.usual(100);
  for (std::uint32_t i = 1; i <= 8; ++i) {
    EXPECT_FALSE(run.guard.out_of_patience());
    run.take(kNoNumber);
    EXPECT_EQ(run.guard.streak(), i);
  }
  EXPECT_TRUE(run.guard.out_of_patience());
  EXPECT_EQ(run.guard.trained(), StepId(100));
  run.usual(1);
  EXPECT_EQ(run.guard.streak(), 0u);
  EXPECT_EQ(run.guard.trained(), StepId(109));
}

// Without a stage it is another model, and so it is for a while when the stage is back.
TEST(StepGuard, DoesNotJudgeAStepByThoseWithoutAStage) {
  Training run;
  run.usual(128);
  const std::vector<StageId> absent = {StageId(1)};
  EXPECT_EQ(run.take(5, 3, true, absent), "");
  EXPECT_EQ(run.take(kNoNumber, 3, true, absent), "the loss is not finite");
  EXPECT_EQ(run.take(3.6), "");
  run.usual(64);
  EXPECT_NE(run.take(5), "");
}

TEST(StepGuard, LeavesOutTheStepsBeforeAndAmongTheBadOnes) {
  Training run({.window = 20, .patience = 3});
  run.usual(50);
  for (int i = 0; i < 3; ++i) run.take(9);
  EXPECT_EQ(run.guard.suspects(10), (StepRange{StepId(31), StepId(53)}));
  EXPECT_EQ(run.guard.suspects(40), (StepRange{StepId(41), StepId(53)}));
  run.decide(RollbackRecord{10, "", {StepId(31), StepId(53)}});
  EXPECT_EQ(run.guard.gone_back_to(), 10u);
  EXPECT_EQ(run.guard.streak(), 0u);
  run.usual(20);
  while (run.taken < 53) EXPECT_TRUE(run.usual().starts_with("its data is left out")) << run.taken;
  // They say nothing of the run: neither of its level nor of its streak.
  EXPECT_EQ(run.guard.streak(), 0u);
  EXPECT_EQ(run.guard.trained(), StepId(30));
  EXPECT_NE(run.take(9), "");
  run.usual(5);
  // A later loss of a stage takes the run back as well; what was left out stays it.
  run.decide(RollbackRecord{40, "", {}});
  EXPECT_NE(run.usual(), "");
  EXPECT_EQ(run.guard.gone_back_to(), 10u);
}

TEST(StepGuard, JudgesAsItDidWhenTheRunGoesBackOrItsLogIsReadAgain) {
  Training run;
  for (int i = 0; i < 300; ++i) i % 37 == 36 ? run.take(7) : run.usual();
  const auto bad = run.bad;
  EXPECT_EQ(bad.size(), 7u);
  StepGuard again({});
  for (const auto& record : run.log) again.apply(record);
  for (double loss = 3; loss < 4; loss += .01)
    EXPECT_EQ(again.objection(StepId(301), {loss, 10, {}, 1, 0}, true, {}),
              run.guard.objection(StepId(301), {loss, 10, {}, 1, 0}, true, {}));

  for (const LogRecord& back : {LogRecord(RollbackRecord{150, "", {}}), LogRecord(InitRecord{150})}) {
    StepGuard then({});
    for (const auto& record : run.log) {
      if (const auto* commit = std::get_if<CommitRecord>(&record); commit && commit->commit.step > StepId(150)) break;
      then.apply(record);
    }
    StepGuard guard = run.guard;
    guard.apply(back);
    EXPECT_EQ(guard.trained(), then.trained());
    for (double loss = 3; loss < 4; loss += .01)
      EXPECT_EQ(guard.objection(StepId(151), {loss, 10, {}, 1, 0}, true, {}),
                then.objection(StepId(151), {loss, 10, {}, 1, 0}, true, {}));
  }
}

}  // namespace
}  // namespace isthmus::coordinator
