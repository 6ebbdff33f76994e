// A checker that says nothing is worth something only if it speaks when it has to: a clean story, then one lie at a time.
#include "sim/checkers.h"

#include <gtest/gtest.h>

#include <functional>

namespace isthmus::sim {
namespace {

Plan two_by_two() {
  Plan plan;
  for (std::uint32_t s = 0; s < 2; ++s) plan.stages.push_back({s, s + 1, 2, 2, 3});
  plan.steps = 4;
  plan.microbatches = 2;
  return plan;
}

// What reaches the checkers in a run of one step. A test changes one thing of it.
struct Story {
  std::vector<LogRecord> admissions;
  std::vector<Report> reports;
  CommitRecord commit;
  std::map<SessionId, std::multiset<std::uint32_t>> sums = {{SessionId(1), {0}}, {SessionId(2), {1}}, {SessionId(3), {0, 1}}, {SessionId(4), {}}};
  std::vector<LogRecord> after;
  std::uint64_t held_version = 1;
  std::uint64_t weights_of = 1;
  std::uint64_t custody = 100;
  std::size_t held_messages = 5;

  Story() {
    for (std::uint32_t i = 1; i <= 4; ++i) {
      admissions.push_back(AdmitRecord{{PeerId(i), SessionId(i), StageId((i - 1) / 2), ReplicaId((i - 1) % 2), {}, {}}, 0});
      Report report;
      report.session = SessionId(i);
      report.prepared_epoch = EpochId(5);  // init and four admissions
      report.checkpointed = 1;
      reports.push_back(report);
    }
    commit.commit = {StepId(1), 0, EpochId(5), 1, true};
    after = {CheckpointRecord{StageId(0), 1}};
  }

  std::vector<std::string> violations() const {
    Checkers checkers(two_by_two(), 9);
    checkers.logged(InitRecord{0}, {});
    for (const auto& record : admissions) checkers.logged(record, {});
    for (const auto& report : reports) checkers.reported(report);
    checkers.logged(commit, sums);
    for (const auto& record : after) checkers.logged(record, sums);
    checkers.holds(PeerId(3), StageId(1), held_version, checkers.reference().weights(StageId(1), weights_of));
    checkers.bounds(PeerId(1), custody, 100, held_messages, 5);
    return checkers.violations();
  }
};

TEST(Checkers, SayNothingOfACleanStep) { EXPECT_TRUE(Story().violations().empty()) << Story().violations().front(); }

TEST(Checkers, SpeakOfEveryLie) {
  const std::vector<std::pair<std::string, std::function<void(Story&)>>> lies = {
      {"counts 0 times", [](Story& s) { s.sums[SessionId(2)].clear(); }},
      {"counts 2 times", [](Story& s) { s.sums[SessionId(4)].insert(1); }},
      {"counts 2 times", [](Story& s) { s.sums[SessionId(1)].insert(0); }},
      {"had not prepared", [](Story& s) { s.reports.pop_back(); }},
      {"had not prepared", [](Story& s) { s.reports[2].prepared_epoch = EpochId(4); }},
      {"for epoch 4", [](Story& s) { s.commit.commit.epoch = EpochId(4); }},
      {"committed after version", [](Story& s) { s.commit.commit.step = StepId(2); }},
      {"committed after version", [](Story& s) { s.after.push_back(s.commit); }},
      {"admitted twice", [](Story& s) { s.after.push_back(s.admissions[0]); }},
      {"with version 0 was admitted", [](Story& s) { s.after.push_back(AdmitRecord{{PeerId(1), SessionId(8), StageId(0), ReplicaId(0), {}, {}}, 0}); }},
      {"expulsion of nobody", [](Story& s) { s.after.push_back(ExpelRecord{SessionId(8), ""}); }},
      {"into the future", [](Story& s) { s.after.push_back(RollbackRecord{3, ""}); }},
      {"is not on the disk", [](Story& s) { s.reports[1].checkpointed = 0; }},
      {"other weights", [](Story& s) { s.weights_of = 0; }},
      {"at version 2, the log at 1", [](Story& s) { s.held_version = s.weights_of = 2; }},
      {"keeps 101 bytes", [](Story& s) { s.custody = 101; }},
      {"holds 6 messages", [](Story& s) { s.held_messages = 6; }},
  };
  for (const auto& [said, lie] : lies) {
    Story story;
    lie(story);
    const auto violations = story.violations();
    ASSERT_FALSE(violations.empty()) << said;
    EXPECT_NE(violations.front().find(said), std::string::npos) << violations.front() << ", expected: " << said;
  }
}

}  // namespace
}  // namespace isthmus::sim
