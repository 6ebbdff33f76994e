// Whole runs on emulated devices: real processes, sockets and files, without libtorch, so also under sanitizers.

#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "app/command_line_test.h"

namespace {

using nlohmann::json;

// Two stages of two replicas; a step takes tens of milliseconds.
class EmulatedTest : public CommandLineTest {
 protected:
  void SetUp() override {
    CommandLineTest::SetUp();
    end_run_file(R"([pipeline]
device = "emulated"
layout = "auto"
stages = 2
replicas = 2
[emulated]
forward_ms = 2
input_gradient_ms = 2
weight_gradient_ms = 2
[checkpoint]
every = 5
)");
  }
  std::vector<std::string> train(std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"train", folder_ + "/run.toml", "--out", folder_ + "/out"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  std::string events() const { return read(folder_ + "/out/events.jsonl"); }
  // Twenty steps, each once and in order, and nobody of the run is left.
  void expect_whole() const {
    std::istringstream lines(read(folder_ + "/out/metrics.jsonl"));
    std::vector<int> steps;
    for (std::string line; std::getline(lines, line);)
      if (const json j = json::parse(line); j.contains("loss")) steps.push_back(j["step"]);
    ASSERT_EQ(steps.size(), 20u) << events();
    for (int i = 0; i < 20; ++i) EXPECT_EQ(steps[i], i + 1);
    EXPECT_TRUE(json::parse(read(folder_ + "/out/summary.json"))["finished"]);
    EXPECT_TRUE(eventually([&] { return processes("out").empty(); }));
  }
};

TEST_F(EmulatedTest, TrainsToTheEnd) {
  const auto done = run(train());
  ASSERT_EQ(done.code, 0) << done.output;
  expect_whole();
  EXPECT_NE(done.output.find(" nats per token; all files are in " + folder_ + "/out"), std::string::npos)
      << done.output;
  EXPECT_EQ(done.output.find("codec projected"), std::string::npos) << done.output;
  EXPECT_EQ(done.output.find("runtime error"), std::string::npos) << done.output;
}

TEST_F(EmulatedTest, SaysThatTheMapMattersToACodec) {
  const auto done = run(train({"--set", "boundary.codec=projected", "--set", "boundary.rank=8"}));
  EXPECT_EQ(done.code, 0) << done.output;
  EXPECT_NE(done.output.find("with another layer-to-stage map"), std::string::npos) << done.output;
}

TEST_F(EmulatedTest, GoesOnWhenAWorkerIsKilled) {
  const std::string output = folder_ + "/killed.txt";
  const pid_t parent = start(train(), output);
  ASSERT_TRUE(reaches("out", 6));
  const pid_t victim = worker("out", 3);
  ASSERT_GT(victim, 0);
  ::kill(victim, SIGKILL);
  const auto done = finish(parent, output);
  ASSERT_EQ(done.code, 0) << done.output << events();
  expect_whole();
}

TEST_F(EmulatedTest, GoesOnFromItsCheckpointsWhenAllWereKilled) {
  const std::string output = folder_ + "/killed.txt";
  const pid_t parent = start(train(), output);
  ASSERT_TRUE(reaches("out", 8));
  ::kill(parent, SIGKILL);  // and with it, by the kernel, all others
  (void)finish(parent, output);
  ASSERT_TRUE(eventually([&] { return processes("out").empty(); }));
  const auto resumed = run(train({"--resume"}));
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  expect_whole();
}

TEST_F(EmulatedTest, RefusesABadRunFileAndLeavesNothing) {
  const auto bad = run(train({"--set", "boundary.rank=99", "--set", "emulated.forward_ms=-1"}));
  EXPECT_EQ(bad.code, 78) << bad.output;
  EXPECT_NE(bad.output.find("boundary.rank"), std::string::npos) << bad.output;
  EXPECT_NE(bad.output.find("emulated.forward_ms"), std::string::npos) << bad.output;
  std::ofstream(folder_ + "/run.toml") << "[run\nname = \xff\n";
  EXPECT_EQ(run(train()).code, 78);
  EXPECT_EQ(run({"train", folder_ + "/none.toml"}).code, 78);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/out"));
}

// Times are counted in nanoseconds: what a slow link and large tensors come to must not wrap around.
TEST_F(EmulatedTest, SimulatesNoRunThatTakesLifetimes) {
  const auto refused = run({"simulate", folder_ + "/run.toml", "--steps", "20", "--set", "link.bandwidth_mbps=0.001",
                            "--set", "boundary.codec=identity", "--set", "train.sequences_per_microbatch=512", "--set",
                            "train.microbatches_per_step=512"});
  EXPECT_EQ(refused.code, 2) << refused.output;
  EXPECT_NE(refused.output.find("years, expected at most 10"), std::string::npos) << refused.output;
}

}  // namespace
