// Replicas that step on their own, as real processes: whatever dies, they agree in the end.

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "app/command_line_test.h"

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class SyncTest : public CommandLineTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    CommandLineTest::SetUp();
    write_replicas(2, 3);
  }
  void write_replicas(int first, int second) const {
    end_run_file("[pipeline]\n[[pipeline.stage]]\nlayers = \"0:2\"\nreplicas = " + std::to_string(first) +
                 "\n[[pipeline.stage]]\nlayers = \"2:4\"\nreplicas = " + std::to_string(second) +
                 "\n[checkpoint]\nevery = 5\n");
  }
  // Replicas that agree every four of forty steps.
  std::vector<std::string> train(const std::string& out, const std::string& mode,
                                 std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"train", folder_ + "/run.toml", "--out", folder_ + "/" + out};
    for (const std::string& set :
         {std::string("run.deterministic=false"), std::string("run.steps=40"),
          std::string("train.microbatches_per_step=6"), std::string("pipeline.routing=round_robin"),
          "sync.mode=" + mode, std::string("sync.every=4"), std::string("link.latency_ms=5")})
      arguments.insert(arguments.end(), {"--set", set});
    for (const auto& set : more) arguments.insert(arguments.end(), {"--set", set});
    return arguments;
  }
  json summary(const std::string& out) const { return json::parse(read(folder_ + "/" + out + "/summary.json")); }
  std::vector<json> events(const std::string& out, const std::string& event) const {
    std::istringstream lines(read(folder_ + "/" + out + "/events.jsonl"));
    std::vector<json> found;
    for (std::string line; std::getline(lines, line);)
      if (const json j = json::parse(line); j["event"] == event) found.push_back(j);
    return found;
  }
};

// A run ends only if all replicas of a stage report the same weights.
TEST_P(SyncTest, ReplicasEndWithTheSameWeightsAndHaveLearned) {
  write_replicas(1, 3);
  const auto done = run(train("plain", GetParam()));
  ASSERT_EQ(done.code, 0) << done.output;
  const json end = summary("plain");
  EXPECT_EQ(end["steps"], 40);
  EXPECT_LT(end["validation_loss"], 5.2) << done.output;  // bytes at random: 5.55
  EXPECT_TRUE(events("plain", "offender").empty());
  EXPECT_TRUE(events("plain", "expelled").empty());
}

INSTANTIATE_TEST_SUITE_P(Modes, SyncTest, ::testing::Values("diloco", "sparseloco", "slices"),
                         [](const auto& p) { return p.param; });

// One is killed and catches up with what the others agreed on meanwhile; the rest do not wait for it. JoiningTest kills
// replicas that tell each other slices.
class KilledSyncTest : public SyncTest {};
TEST_P(KilledSyncTest, AgreeAlthoughReplicasAreKilled) {
  const std::string output = folder_ + "/killed.txt";
  const pid_t parent =
      start(train("killed", GetParam(), {"checkpoint.every=10", "link.latency_ms=30", "run.steps=32"}), output);
  for (const auto& [step, peer] : {std::pair(5, 2), std::pair(10, 5), std::pair(15, 4)}) {
    EXPECT_TRUE(reaches("killed", static_cast<std::size_t>(step)));
    if (const pid_t pid = worker("killed", peer); pid > 0) ::kill(pid, SIGKILL);
  }
  const auto done = finish(parent, output);
  ASSERT_EQ(done.code, 0) << done.output << read(folder_ + "/killed/events.jsonl");
  EXPECT_GE(events("killed", "admitted").size(), 7u) << "five at the start, and those that came back";
  EXPECT_TRUE(events("killed", "rolled back").empty());
}

INSTANTIATE_TEST_SUITE_P(Modes, KilledSyncTest, ::testing::Values("diloco", "sparseloco"),
                         [](const auto& p) { return p.param; });

// No journal holds what replicas did each for itself, so a stage that loses all of them takes the run back to a
// checkpoint, here from before they last agreed.
TEST_F(SyncTest, GoBackWhenAStageLosesAllOfThem) {
  const std::string output = folder_ + "/lost.txt";
  const pid_t parent =
      start(train("lost", "sparseloco",
                  {"run.steps=24", "checkpoint.every=10", "link.latency_ms=20", "recovery.skip_after_s=0"}),
            output);
  ASSERT_TRUE(reaches("lost", 14));
  for (const int peer : {3, 4, 5})
    if (const pid_t pid = worker("lost", peer); pid > 0) ::kill(pid, SIGKILL);
  const auto done = finish(parent, output);
  ASSERT_EQ(done.code, 0) << done.output << read(folder_ + "/lost/events.jsonl");
  EXPECT_GE(events("lost", "rolled back").size(), 1u);
  EXPECT_EQ(summary("lost")["steps"], 24);
}

TEST_F(SyncTest, GoOnFromACheckpoint) {
  write_replicas(1, 2);
  ASSERT_EQ(run(train("resumed", "diloco", {"run.steps=12", "train.warmup_steps=4", "checkpoint.every=6"})).code, 0);
  auto again = train("resumed", "diloco", {"run.steps=20", "train.warmup_steps=4", "checkpoint.every=6"});
  again.push_back("--resume");
  const auto done = run(again);
  ASSERT_EQ(done.code, 0) << done.output;
  EXPECT_EQ(summary("resumed")["steps"], 20);
}

// Four replicas of the last stage, one of which lies: it is named time and again. Of so small a model an honest update
// may look odd once, and all of its work would be done by one replica if it went to the quickest. Of the lies that are
// made of the update and of those that stand for it, one each; Lies.AreNamedAndDoLittle has them all.
TEST_F(SyncTest, NameWhoeverLies) {
  write_replicas(1, 4);
  for (const std::string lie : {"noise", "stale"}) {
    const auto done = run(train(lie, "sparseloco",
                                {"model.hidden=128", "boundary.rank=16", "train.microbatches_per_step=8",
                                 "run.steps=24", "checkpoint.every=0", "rehearsal.liar=3", "rehearsal.lie=" + lie}));
    ASSERT_EQ(done.code, 0) << done.output;
    const auto named = events(lie, "offender");
    const auto liar = std::ranges::count_if(named, [](const json& event) { return event["peer"] == 3; });
    EXPECT_GE(liar, 3) << lie;
    EXPECT_GE(liar, 3 * (std::ssize(named) - liar)) << lie;
  }
}

}  // namespace
