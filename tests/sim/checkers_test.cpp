// A checker that says nothing is worth something only if it speaks when it has to: a clean story, then one lie at a
// time.
#include "sim/checkers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "sim/cluster.h"

namespace isthmus::sim {
namespace {

protocol::Plan two_by_two() {
  protocol::Plan plan;
  for (std::uint32_t s = 0; s < 2; ++s) plan.stages.push_back({s, s + 1, 2, 2, 3});
  plan.steps = 4;
  plan.microbatches = 2;
  return plan;
}

// What reaches the checkers in a run of one step. A test changes one thing of it.
struct Story {
  std::vector<coordinator::LogRecord> admissions;
  std::vector<protocol::Report> reports;
  coordinator::CommitRecord commit;
  std::map<SessionId, std::multiset<std::uint32_t>> sums = {
      {SessionId(1), {0}}, {SessionId(2), {1}}, {SessionId(3), {0, 1}}, {SessionId(4), {}}};
  std::vector<coordinator::LogRecord> after;
  std::uint64_t held_version = 1;
  std::uint64_t weights_of = 1;
  std::uint64_t custody = 100;
  std::size_t held_messages = 5;
  std::size_t samples = 4;

  Story() {
    for (std::uint32_t i = 1; i <= 4; ++i) {
      admissions.push_back(
          coordinator::AdmitRecord{{PeerId(i), SessionId(i), StageId((i - 1) / 2), ReplicaId((i - 1) % 2), {}, {}}, 0});
      protocol::Report report;
      report.session = SessionId(i);
      report.prepared_epoch = EpochId(5);  // init and four admissions
      report.checkpointed = 1;
      reports.push_back(report);
    }
    commit.commit = {StepId(1), 0, EpochId(5), 1, true};
    after = {coordinator::CheckpointRecord{StageId(0), 1}};
  }

  std::vector<std::string> violations() const {
    Checkers checkers(two_by_two(), 9);
    checkers.logged(coordinator::InitRecord{0}, {});
    for (const auto& record : admissions) checkers.logged(record, {});
    for (const auto& report : reports) checkers.reported(report);
    checkers.logged(commit, sums);
    for (const auto& record : after) checkers.logged(record, sums);
    checkers.holds(PeerId(3), StageId(1), held_version, checkers.reference().weights(StageId(1), weights_of));
    checkers.bounds(PeerId(1), {custody, held_messages, samples}, {100, 5, 4});
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
      {"counts 0 times",
       [](Story& s) {  // expelled, and nobody did its share again
         s.admissions.push_back(coordinator::ExpelRecord{SessionId(2), ""});
         for (auto& report : s.reports) report.prepared_epoch = EpochId(6);
         s.commit.commit.epoch = EpochId(6);
       }},
      {"had not prepared",
       [](Story& s) {  // an expulsion voids what was prepared before it
         s.admissions.push_back(coordinator::ExpelRecord{SessionId(4), ""});
         s.commit.commit.epoch = EpochId(6);
       }},
      {"for epoch 5",
       [](Story& s) {
         s.admissions.push_back(coordinator::ExpelRecord{SessionId(4), ""});
       }},
      {"admitted twice", [](Story& s) { s.after.push_back(s.admissions[0]); }},
      {"with version 0 was admitted",
       [](Story& s) {
         s.after.push_back(coordinator::AdmitRecord{{PeerId(1), SessionId(8), StageId(0), ReplicaId(0), {}, {}}, 0});
       }},
      {"with version 1 was admitted at version 0",
       [](Story& s) {
         s.after.push_back(coordinator::RollbackRecord{0, ""});
         s.after.push_back(coordinator::AdmitRecord{{PeerId(1), SessionId(8), StageId(0), ReplicaId(0), {}, {}}, 1});
         s.held_version = s.weights_of = 0;
       }},
      {"expulsion of nobody",
       [](Story& s) {
         s.after.push_back(coordinator::ExpelRecord{SessionId(4), ""});
         s.after.push_back(coordinator::ExpelRecord{SessionId(4), ""});
       }},
      {"expulsion of nobody",
       [](Story& s) {
         s.after.push_back(coordinator::ExpelRecord{SessionId(8), ""});
       }},
      {"into the future",
       [](Story& s) {
         s.after.push_back(coordinator::RollbackRecord{3, ""});
       }},
      {"is not on the disk", [](Story& s) { s.reports[1].checkpointed = 0; }},
      {"other weights", [](Story& s) { s.weights_of = 0; }},
      {"at version 2, the log never was above 1", [](Story& s) { s.held_version = s.weights_of = 2; }},
      {"lost its last replica to a move",
       [](Story& s) {
         s.after.push_back(coordinator::MoveRecord{PeerId(1), {StageId(1), ReplicaId(2)}, ""});
         s.after.push_back(coordinator::MoveRecord{PeerId(2), {StageId(1), ReplicaId(3)}, ""});
       }},
      {"which serves nothing, is moved",
       [](Story& s) {
         s.after.push_back(coordinator::MoveRecord{PeerId(9), {StageId(1), ReplicaId(2)}, ""});
       }},
      {"was moved to stage 1 and is admitted to stage 0",
       [](Story& s) {
         s.after.push_back(coordinator::MoveRecord{PeerId(1), {StageId(1), ReplicaId(2)}, ""});
         s.after.push_back(coordinator::AdmitRecord{{PeerId(1), SessionId(8), StageId(0), ReplicaId(0), {}, {}}, 1});
       }},
      {"keeps 101 bytes", [](Story& s) { s.custody = 101; }},
      {"keeps 6 messages", [](Story& s) { s.held_messages = 6; }},
      {"keeps 5 samples", [](Story& s) { s.samples = 5; }},
  };
  for (const auto& [said, lie] : lies) {
    Story story;
    lie(story);
    const auto violations = story.violations();
    ASSERT_FALSE(violations.empty()) << said;
    EXPECT_NE(violations.front().find(said), std::string::npos) << violations.front() << ", expected: " << said;
  }
}

TEST(Checkers, SpeakOfARunThatDoesNotEndAsItShould) {
  const auto said = [](std::uint64_t committed, const std::optional<coordinator::RunEnded>& end) {
    Checkers checkers(two_by_two(), 9);
    checkers.logged(coordinator::InitRecord{committed}, {});
    checkers.over(end, seconds(180));
    return checkers.violations();
  };
  coordinator::RunEnded end;
  end.finished = true;
  EXPECT_TRUE(said(5, end).empty());  // four steps and the last evaluation
  EXPECT_EQ(said(4, end),
            std::vector<std::string>({"the run says that it has finished, but the log has 4 of 5 steps"}));
  EXPECT_EQ(said(4, std::nullopt),
            std::vector<std::string>({"the run has not finished 180 s after its last fault; 4 of 5 steps committed"}));
  end.finished = false;
  end.reason = "stage 1 has no worker left";
  EXPECT_EQ(said(5, end), std::vector<std::string>({"the run ended before its time: stage 1 has no worker left"}));
}

// A run that stands still, and not only a story of one: two neighbours that cannot reach each other for longer than the
// run has.
TEST(Checkers, SpeakOfARunThatStandsStill) {
  protocol::Plan plan = two_by_two();
  for (auto& stage : plan.stages) {
    stage.replicas = 1;
    stage.state_bytes = 3 * 8;
  }
  plan.tokens_per_microbatch = 1;
  plan.token_bytes = plan.forward_bytes = plan.backward_bytes = plan.part_width = plan.total_width = 8;
  for (const bool healed : {true, false}) {
    Cluster cluster(plan, {});
    cluster.add({FaultKind::kPartition, cluster.now() + seconds(.1), healed ? seconds(5) : seconds(1e6), PeerId(1),
                 PeerId(2), StageId(0), 0});
    EXPECT_EQ(cluster.run(seconds(200)), healed);
    cluster.check_end(seconds(180));
    if (healed) {
      EXPECT_TRUE(cluster.violations().empty()) << cluster.violations().front();
    } else {
      EXPECT_NE(cluster.violations().at(0).find("has not finished"), std::string::npos);
    }
  }
}

TEST(Checkers, KnowThatARunMayEndBadlyAfterBadStepsOnly) {
  const auto violations = [](std::size_t bad) {
    Checkers checkers(two_by_two(), 9);
    checkers.logged(coordinator::InitRecord{0}, {});
    for (std::uint64_t step = 1; step <= 5; ++step) {
      coordinator::CommitRecord record;
      record.commit = {.step = StepId(step), .epoch = EpochId(step), .apply = step + bad <= 4};
      checkers.logged(record, {});
    }
    coordinator::RunEnded end;
    end.reason = "its last steps were all bad";
    checkers.over(end, {});
    const auto all = checkers.violations();
    return std::ranges::count(all, "the run ended before its time: its last steps were all bad");
  };
  EXPECT_EQ(violations(2), 0);
  EXPECT_EQ(violations(1), 1);
  EXPECT_EQ(violations(0), 1);
}

}  // namespace
}  // namespace isthmus::sim
