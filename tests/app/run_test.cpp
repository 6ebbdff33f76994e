// Whole runs through the command line: real processes, sockets and files.

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <ranges>
#include <sstream>
#include <string>
#include <vector>

#include "app/command_line_test.h"
#include "membership/marks.h"
#include "store/checkpoint.h"

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class RunTest : public CommandLineTest {
 protected:
  std::vector<std::string> train(const std::string& out, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"train", folder_ + "/run.toml", "--out", folder_ + "/" + out};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  json summary(const std::string& out) const { return json::parse(read(folder_ + "/" + out + "/summary.json")); }
  std::vector<json> metrics(const std::string& out) const {
    std::istringstream lines(read(folder_ + "/" + out + "/metrics.jsonl"));
    std::vector<json> all;
    for (std::string line; std::getline(lines, line);) all.push_back(json::parse(line));
    return all;
  }
  std::vector<double> losses(const std::string& out) const {
    std::vector<double> all;
    for (const auto& line : metrics(out)) all.push_back(line.contains("loss") ? line["loss"] : line["validation_loss"]);
    return all;
  }
  // Of so many steps; every test has to call it before it writes another map.
  void whole_run(int steps) const {
    CommandLineTest::whole_run(std::to_string(steps), {"run.steps=" + std::to_string(steps), "pipeline.stages=1"});
  }
  // Two replicas of each stage.
  std::vector<std::string> replicated(const std::string& out, std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"--set", "pipeline.replicas=2"});
    return train(out, more);
  }
  // The run file with so many replicas of each stage, its four layers cut as evenly as they can be.
  void write_replicas(const std::vector<int>& replicas) const {
    std::string text = "[pipeline]\n";
    const std::size_t stages = replicas.size();
    for (std::size_t s = 0; s < stages; ++s)
      text += "[[pipeline.stage]]\nlayers = \"" + std::to_string(4 * s / stages) + ":" +
              std::to_string(4 * (s + 1) / stages) + "\"\nreplicas = " + std::to_string(replicas[s]) + "\n";
    end_run_file(text + "[checkpoint]\nevery = 5\n");
  }
  // Lines of events.jsonl that contain `what`.
  std::size_t count(const std::string& out, const std::string& what) const {
    std::istringstream lines(read(folder_ + "/" + out + "/events.jsonl"));
    std::size_t found = 0;
    for (std::string line; std::getline(lines, line);) found += line.find(what) != std::string::npos;
    return found;
  }
  // `hurt` does its harm while the run goes on; it has to end with the weights of the run in "whole".
  // Its links are slow, so that most of a step is in flight, and few steps are long enough for the harm.
  void expect_same_after(const std::string& out, std::vector<std::string> arguments,
                         const std::function<void()>& hurt) const {
    arguments.insert(arguments.end(), {"--set", "link.latency_ms=30"});
    const std::string output = folder_ + "/" + out + ".txt";
    const pid_t parent = start(arguments, output);
    hurt();
    if (::testing::Test::HasFatalFailure()) ::kill(parent, SIGINT);
    const auto done = finish(parent, output);
    ASSERT_EQ(done.code, 0) << done.output << read(folder_ + "/" + out + "/events.jsonl");
    EXPECT_EQ(summary(out)["weights_hash"], summary("whole")["weights_hash"]) << done.output;
    expect_nothing_left(out);
  }
  // Looked up first, so that they die together.
  void kill_workers(const std::string& out, const std::vector<int>& peers) const {
    std::vector<pid_t> pids;
    for (const int peer : peers) pids.push_back(worker(out, peer));
    for (const pid_t pid : pids) {
      ASSERT_GT(pid, 0);  // kill(-1) would be everybody
      ::kill(pid, SIGKILL);
    }
  }
  static bool stops_while_writing(const std::string& stage, pid_t worker, const std::string& file);
  void expect_nothing_left(const std::string& out) const {
    // A killed process may take a moment to leave the table.
    EXPECT_TRUE(eventually([&] { return processes(out).empty(); })) << processes(out).front().second;
  }
};

TEST_F(RunTest, EndsWithTheSameWeightsHoweverTheLayersAreCut) {
  whole_run(20);  // in one stage
  EXPECT_EQ(summary("whole")["weights_hash"].size(), 6u);
  for (const std::string stages : {"2", "4"}) {
    const auto done = run(train("cut" + stages, {"--set", "pipeline.stages=" + stages}));
    ASSERT_EQ(done.code, 0) << done.output;
    expect_nothing_left("cut" + stages);
    EXPECT_EQ(summary("cut" + stages)["weights_hash"], summary("whole")["weights_hash"]);
    EXPECT_EQ(losses("cut" + stages), losses("whole"));
  }
}

TEST_F(RunTest, LeavesTheFilesItPromises) {
  const auto done = run(train("files", {"--trace"}));
  ASSERT_EQ(done.code, 0) << done.output;
  const auto lines = metrics("files");
  ASSERT_EQ(lines.size(), 22u);  // 20 steps, evaluations after 10 and 20
  for (const char* key :
       {"step", "tokens", "loss", "grad_norm", "learning_rate", "seconds", "step_seconds", "tokens_per_second",
        "wire_bytes", "wire_bytes_per_token_hop", "skipped_microbatches", "replayed_microbatches"})
    EXPECT_TRUE(lines[0].contains(key)) << key;
  EXPECT_EQ(lines.back()["step"], 20);
  EXPECT_TRUE(lines.back().contains("validation_loss"));
  EXPECT_LT(lines.back()["validation_loss"], lines[0]["loss"]);
  // 8 fp32 coefficients each way and a byte per token, and the headers.
  EXPECT_GT(lines[5]["wire_bytes_per_token_hop"], 65.0);
  const json result = summary("files");
  EXPECT_TRUE(result["finished"]);
  EXPECT_GT(result["efficiency"], 0.0);
  EXPECT_EQ(result["config"]["model"]["hidden"], 32);
  const json trace = json::parse(read(folder_ + "/files/trace.json"));
  std::map<int, int> lanes;
  for (const auto& event : trace["traceEvents"])
    if (event["ph"] == "X") ++lanes[event["tid"]];
  for (int lane = 0; lane < 3; ++lane) EXPECT_GE(lanes[lane], 20 * 4 * 2);  // forward, input gradient, weight gradient
  for (int lane = 3; lane < 5; ++lane) EXPECT_GE(lanes[lane], 20 * 4 * 2);  // send, receive
  EXPECT_GT(lanes[5], 0);                                                   // wait
  // What a head reads is there before its step begins; the first one's has to be asked for.
  double first_step_ends = 0, waited_until = 0;
  for (const auto& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    const double end = event["ts"].get<double>() + event["dur"].get<double>();
    if (event["name"] == "optimizer step 1") first_step_ends = std::max(first_step_ends, end);
    if (event["name"] == "tokens from the coordinator") waited_until = std::max(waited_until, end);
  }
  EXPECT_GT(first_step_ends, 0);
  EXPECT_LT(waited_until, first_step_ends);
  for (const char* path : {"checkpoint/stage-0/step-00000020/manifest.json",
                           "checkpoint/stage-1/step-00000020/weights.safetensors", "run.toml", "events.jsonl"})
    EXPECT_TRUE(fs::exists(folder_ + "/files/" + path)) << path;
  EXPECT_NE(done.output.find("step    20/20"), std::string::npos);
}

TEST_F(RunTest, ResumesWithTheLossesOfAnUninterruptedRun) {
  whole_run(20);
  const std::string output = folder_ + "/killed.txt";
  const pid_t parent = start(train("killed"), output);
  ASSERT_TRUE(reaches("killed", 8));
  ::kill(parent, SIGKILL);  // and with it, by the kernel, all others
  (void)finish(parent, output);
  expect_nothing_left("killed");
  const auto resumed = run(train("killed", {"--resume"}));
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_EQ(losses("killed"), losses("whole"));
  EXPECT_EQ(summary("killed")["weights_hash"], summary("whole")["weights_hash"]);
}

TEST_F(RunTest, StopsInOrderOnCtrlCAndGoesOnFromThere) {
  whole_run(20);
  const std::string output = folder_ + "/stopped.txt";
  const pid_t parent = start(train("stopped", {"--set", "checkpoint.every=0"}), output);
  ASSERT_TRUE(reaches("stopped", 6));
  ::kill(parent, SIGINT);
  const auto stopped = finish(parent, output);
  EXPECT_EQ(stopped.code, 130) << stopped.output;
  expect_nothing_left("stopped");
  ASSERT_TRUE(fs::exists(folder_ + "/stopped/checkpoint/stage-0"));
  ASSERT_EQ(run(train("stopped", {"--resume", "--set", "checkpoint.every=0"})).code, 0);
  EXPECT_EQ(losses("stopped"), losses("whole"));
}

// Whatever is killed, and whenever: the run ends with the weights of the one that nothing happened to.

TEST_F(RunTest, HasTheSameWeightsHoweverManyReplicasServeAStage) {
  whole_run(20);
  const auto two = run(replicated("two"));
  ASSERT_EQ(two.code, 0) << two.output;
  expect_nothing_left("two");
  EXPECT_EQ(summary("two")["weights_hash"], summary("whole")["weights_hash"]);
}

TEST_F(RunTest, ReplacesAKilledWorkerOfAStageOfOne) {
  whole_run(20);
  expect_same_after("dead", train("dead"), [&] {
    ASSERT_TRUE(reaches("dead", 6));
    kill_workers("dead", {2});
  });
}

TEST_F(RunTest, LosesNothingWhenReplicasAreKilledOneByOne) {
  whole_run(70);
  expect_same_after("killed", replicated("killed", {"--set", "run.steps=70"}), [&] {
    std::size_t step = 4;
    for (const int peer : {1, 4, 2, 3}) {
      ASSERT_TRUE(reaches("killed", step));
      const std::size_t before = count("killed", "\"admitted\"");
      kill_workers("killed", {peer});
      // The next one only when this one is replaced: two at once may be a whole stage.
      EXPECT_TRUE(eventually([&] { return count("killed", "\"admitted\"") > before; }));
      step = metrics("killed").size() + 3;
    }
  });
  EXPECT_EQ(count("killed", "\"rolled back\""), 0u);
}

TEST_F(RunTest, RebuildsAStageThatLostEveryReplica) {
  whole_run(20);
  write_replicas({1, 2, 1});
  expect_same_after("lost", train("lost"), [&] {
    ASSERT_TRUE(reaches("lost", 9));
    kill_workers("lost", {2, 3});
  });
  EXPECT_EQ(count("lost", "\"rolled back\""), 0u);
}

// Nobody starts them again, so a replica of another stage takes the place.
TEST_F(RunTest, RefillsAStageWhoseProcessesAreGoneFromAStageThatHasTwo) {
  whole_run(20);
  write_replicas({2, 2, 1});
  expect_same_after("refilled", train("refilled", {"--set", "recovery.replace=false"}), [&] {
    ASSERT_TRUE(reaches("refilled", 9));
    kill_workers("refilled", {3, 4});
  });
  EXPECT_EQ(count("refilled", "\"gone\""), 2u);
  EXPECT_EQ(count("refilled", "\"moved\""), 1u);
}

// Three replicas of a stage and one of the next, which takes as long per microbatch.
TEST_F(RunTest, MovesAReplicaToTheStageThatHoldsUpTheStep) {
  end_run_file(R"([pipeline]
device = "emulated"
[[pipeline.stage]]
layers = "0:2"
replicas = 3
[[pipeline.stage]]
layers = "2:4"
[emulated]
forward_ms = 20
input_gradient_ms = 20
weight_gradient_ms = 20
)");
  const std::string output = folder_ + "/moved.txt";
  const pid_t parent =
      start(train("moved", {"--set", "run.steps=100000", "--set", "train.microbatches_per_step=8"}), output);
  const auto admitted = [&] { return count("moved", "stage 1 replica 1"); };
  EXPECT_TRUE(eventually([&] { return admitted() > 0; })) << read(folder_ + "/moved/events.jsonl");
  EXPECT_EQ(count("moved", "\"moved\""), 1u);
  // Started again, it is told where it serves now.
  std::string mover;
  std::istringstream lines(read(folder_ + "/moved/events.jsonl"));
  for (std::string line; std::getline(lines, line);)
    if (line.find("\"moved\"") != std::string::npos)
      mover = " --name worker-" + std::to_string(json::parse(line)["peer"].get<int>()) + " ";
  const pid_t worker = process("moved", mover);
  ASSERT_GT(worker, 0);
  ::kill(worker, SIGKILL);
  EXPECT_TRUE(eventually([&] { return admitted() > 1; })) << read(folder_ + "/moved/events.jsonl");
  EXPECT_TRUE(reaches("moved", metrics("moved").size() + 3));
  ::kill(parent, SIGINT);
  const auto done = finish(parent, output);
  EXPECT_EQ(done.code, 130) << done.output;
  EXPECT_EQ(count("moved", "without that seat"), 0u);
  expect_nothing_left("moved");
}

TEST_F(RunTest, RollsBackAndSaysSoWhenAStageIsLostAndThereIsNoJournal) {
  whole_run(20);
  write_replicas({1, 2, 1});
  expect_same_after("rolled", train("rolled", {"--set", "recovery.journal_mb=0"}), [&] {
    ASSERT_TRUE(reaches("rolled", 9));
    kill_workers("rolled", {2, 3});
  });
  EXPECT_GE(count("rolled", "\"rolled back\""), 1u);
}

TEST_F(RunTest, RollsBackFurtherWhenTheNewestCheckpointOfAnotherStageIsDamaged) {
  whole_run(20);
  write_replicas({1, 2, 1});
  expect_same_after("rolled", train("rolled", {"--set", "recovery.journal_mb=0"}), [&] {
    ASSERT_TRUE(eventually([&] { return count("rolled", ", version 10\"") == 3; }));
    std::ofstream(folder_ + "/rolled/checkpoint/stage-0/step-00000010/weights.safetensors", std::ios::binary) << "gone";
    ASSERT_TRUE(reaches("rolled", 13));  // beyond it, so that the other stages have to load it
    kill_workers("rolled", {2, 3});
  });
  EXPECT_GE(count("rolled", "to version 5 on every stage"), 1u) << read(folder_ + "/rolled/events.jsonl");
  EXPECT_EQ(count("rolled", "to version 0 on every stage"), 0u);
}

// Stops the worker at a moment when it has begun this file of a checkpoint and not yet its manifest.
bool RunTest::stops_while_writing(const std::string& stage, pid_t worker, const std::string& file) {
  const auto writing = [&] {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(stage, error))
      if (entry.path().filename().string().starts_with(".writing-") && fs::exists(entry.path() / file, error) &&
          !fs::exists(entry.path() / "manifest.json", error))
        return true;
    return false;
  };
  const auto stands_still = [&] {
    std::error_code error;
    for (const auto& thread : fs::directory_iterator("/proc/" + std::to_string(worker) + "/task", error)) {
      const std::string text = read(thread.path() / "stat");
      const auto state = text.rfind(") ");
      if (state != std::string::npos && text[state + 2] != 'T') return false;
    }
    return true;
  };
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (std::chrono::steady_clock::now() < give_up) {
    if (writing()) {
      ::kill(worker, SIGSTOP);
      while (!stands_still()) ::usleep(50);
      if (writing()) return true;
      ::kill(worker, SIGCONT);  // too late
    }
    ::usleep(100);
  }
  return false;
}

TEST_F(RunTest, LoadsNoCheckpointWhoseWriterWasKilled) {
  const std::vector<std::string> settings = {"--set", "run.steps=14", "--set", "model.hidden=128"};
  ASSERT_EQ(run(train("whole", settings)).code, 0);
  auto arguments = train("torn", settings);
  arguments.insert(arguments.end(), {"--set", "checkpoint.every=1"});
  const std::string checkpoints = folder_ + "/torn/checkpoint";
  expect_same_after("torn", arguments, [&] {
    ASSERT_TRUE(reaches("torn", 3));
    for (const std::uint32_t stage : {0u, 1u}) {
      const std::size_t admitted = count("torn", "\"admitted\"");
      const pid_t worker = this->worker("torn", stage + 1);
      ASSERT_GT(worker, 0);
      ASSERT_TRUE(stops_while_writing(checkpoints + "/stage-" + std::to_string(stage), worker,
                                      stage == 0 ? "weights.safetensors" : "optimizer.safetensors"));
      // What calls itself a checkpoint at this moment is one.
      const auto versions = isthmus::store::checkpoint_versions(checkpoints, isthmus::StageId(stage));
      EXPECT_FALSE(versions.empty());
      for (const auto version : versions) {
        const auto loaded = isthmus::store::read_checkpoint(
            {checkpoints, isthmus::StageId(stage), 2 * stage, 2 * stage + 2, isthmus::ReplicaId(0)}, version);
        EXPECT_TRUE(loaded) << loaded.error().message;
      }
      ::kill(worker, SIGKILL);
      EXPECT_TRUE(eventually([&] { return count("torn", "\"admitted\"") > admitted; }));
    }
  });
  EXPECT_EQ(count("torn", "\"rolled back\""), 0u);
  // Nor is anything left of those that were never finished.
  for (const auto& entry : fs::recursive_directory_iterator(checkpoints))
    EXPECT_EQ(entry.path().string().find(".writing-"), std::string::npos) << entry.path();
}

// One worker comes back to a checkpoint that was cut short, another to one with a flipped byte: both begin from the one
// before.
TEST_F(RunTest, BeginsFromAnOlderCheckpointWhenTheNewestIsDamaged) {
  whole_run(56);
  // Who was killed is back before the next checkpoint, which would be a newer one, and before the end.
  const auto arguments = replicated("damaged", {"--set", "run.steps=56", "--set", "checkpoint.every=18"});
  const auto file = [&](int stage, int version, const std::string& name) {
    return folder_ + "/damaged/checkpoint/stage-" + std::to_string(stage) + "/step-000000" + std::to_string(version) +
           "/" + name;
  };
  expect_same_after("damaged", arguments, [&] {
    // On all disks: nobody writes the one that is damaged again.
    ASSERT_TRUE(eventually([&] { return count("damaged", ", version 36\"") == 2; }));
    const std::string cut = file(0, 36, "weights.safetensors"), flipped = file(1, 36, "optimizer.safetensors");
    fs::resize_file(cut, fs::file_size(cut) - 1);
    std::string bytes = read(flipped);
    bytes[bytes.size() / 2] ^= 1;
    std::ofstream(flipped, std::ios::binary) << bytes;
    kill_workers("damaged", {1, 4});
    ASSERT_TRUE(eventually([&] { return count("damaged", "\"admitted\"") == 6; }));
  });
  std::map<int, std::string> warned, held;
  std::istringstream lines(read(folder_ + "/damaged/events.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const json event = json::parse(line);
    if (event["event"] == "warning") warned[event["peer"]] += event["reason"];
    if (event["event"] == "joining") held[event["peer"]] += event["reason"];
  }
  EXPECT_NE(warned[1].find("step-00000036/weights.safetensors"), std::string::npos) << warned[1];
  EXPECT_NE(warned[1].find("truncated or damaged"), std::string::npos) << warned[1];
  EXPECT_NE(warned[4].find("step-00000036/optimizer.safetensors does not match the digest"), std::string::npos)
      << warned[4];
  for (const int peer : {1, 4}) EXPECT_NE(held[peer].find("it holds version 18"), std::string::npos) << held[peer];
  EXPECT_EQ(count("damaged", "\"rolled back\""), 0u);
}

TEST_F(RunTest, GoesOnFromTheLogWhenTheCoordinatorIsKilled) {
  whole_run(20);
  std::vector<pid_t> workers;
  expect_same_after("orphaned", replicated("orphaned"), [&] {
    for (const std::size_t step : {4u, 9u}) {
      ASSERT_TRUE(reaches("orphaned", step));
      const pid_t coordinator = process("orphaned", "isthmus coordinator");
      ASSERT_GT(coordinator, 0);
      ::kill(coordinator, SIGKILL);
      if (workers.empty())
        for (int peer = 1; peer <= 4; ++peer) workers.push_back(worker("orphaned", peer));
    }
    ASSERT_TRUE(reaches("orphaned", 15));
    for (int peer = 1; peer <= 4; ++peer)
      EXPECT_EQ(worker("orphaned", peer), workers[peer - 1]) << "worker " << peer << " was started again";
  });
  EXPECT_EQ(metrics("orphaned").size(), 22u);  // a line for every step, none twice
  EXPECT_EQ(losses("orphaned"), losses("whole"));
}

TEST_F(RunTest, LetsAFrozenReplicaBackInOnceItHasCaughtUp) {
  whole_run(40);
  expect_same_after("thawed", replicated("thawed", {"--set", "run.steps=40"}), [&] {
    ASSERT_TRUE(reaches("thawed", 4));
    const pid_t worker = this->worker("thawed", 3);
    ASSERT_GT(worker, 0);
    ::kill(worker, SIGSTOP);
    EXPECT_TRUE(eventually([&] { return count("thawed", "\"expelled\"") > 0; }));
    const std::size_t before = metrics("thawed").size();
    EXPECT_TRUE(reaches("thawed", before + 4));  // the others do not wait for it
    const std::size_t admitted = count("thawed", "\"admitted\"");
    ::kill(worker, SIGCONT);
    EXPECT_TRUE(
        eventually([&] { return count("thawed", "\"admitted\"") > admitted || this->worker("thawed", 3) != worker; }));
  });
  EXPECT_GE(count("thawed", "\"expelled\""), 1u);
}

// The only replica of the middle stage stands still: the others go on without it, and take it back in.
TEST_F(RunTest, SkipsAStageThatNobodyServesUntilSomebodyDoes) {
  const std::string output = folder_ + "/skipped.txt";
  const pid_t parent = start(
      train("skipped", {"--set", "run.steps=4000", "--set", "pipeline.stages=3", "--set", "recovery.skip_after_s=1",
                        "--set", "recovery.skip_steps=100000", "--set", "link.latency_ms=5"}),
      output);
  const auto coverage = [&] {
    for (const auto lines = metrics("skipped"); const auto& line : lines | std::views::reverse)
      if (line.contains("coverage")) return line["coverage"].get<std::vector<int>>();
    return std::vector<int>();
  };
  const auto steps = [&] { return metrics("skipped").size(); };
  ASSERT_TRUE(reaches("skipped", 4));
  const auto all = coverage();
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[1], all[0]);
  const pid_t worker = this->worker("skipped", 2);
  ASSERT_GT(worker, 0);
  ::kill(worker, SIGSTOP);
  EXPECT_TRUE(eventually([&] { return coverage() == std::vector<int>{all[0], 0, all[2]}; }));
  const std::size_t before = steps();
  EXPECT_TRUE(reaches("skipped", before + 3));
  ::kill(worker, SIGCONT);
  EXPECT_TRUE(eventually([&] { return coverage() == all; }));
  EXPECT_TRUE(reaches("skipped", steps() + 3));
  EXPECT_GE(count("skipped", "\"skipped\""), 1u);
  EXPECT_EQ(count("skipped", "\"rolled back\""), 0u);
  for (const auto& line : metrics("skipped"))
    if (line.contains("coverage")) {
      EXPECT_EQ(line["skipped_microbatches"], line["coverage"][1] == 0 ? all[0] : 0) << line;
    }
  ::kill(parent, SIGINT);
  EXPECT_EQ(finish(parent, output).code, 130);
  expect_nothing_left("skipped");
}

TEST_F(RunTest, SurvivesAFrozenWorker) {
  whole_run(20);
  const std::string output = folder_ + "/frozen.txt";
  const pid_t parent = start(train("frozen"), output);
  ASSERT_TRUE(reaches("frozen", 4));
  const pid_t worker = this->worker("frozen", 1);
  ASSERT_GT(worker, 0);
  ::kill(worker, SIGSTOP);
  // Frozen until the others have noticed, however long this machine takes for that.
  EXPECT_TRUE(eventually([&] { return count("frozen", "expelled") > 0; }));
  ::kill(worker, SIGCONT);
  const auto done = finish(parent, output);
  ASSERT_EQ(done.code, 0) << done.output;
  EXPECT_NE(read(folder_ + "/frozen/events.jsonl").find("expelled"), std::string::npos);
  EXPECT_EQ(summary("frozen")["weights_hash"], summary("whole")["weights_hash"]);
}

// Whoever computes the step, however it is cut, and also a coordinator that was killed in between: the same steps are
// skipped.
TEST_F(RunTest, SkipsABadBatchOnEveryStage) {
  noisy_run();
  std::vector<std::string> settings;
  for (const auto& set : noisy()) settings.insert(settings.end(), {"--set", set});
  const auto skipped = [&](const std::string& out) {
    std::vector<int> steps;
    for (const auto& line : metrics(out))
      if (line.value("skipped_step", false)) steps.push_back(line["step"]);
    return steps;
  };
  ASSERT_FALSE(skipped("whole").empty());
  EXPECT_EQ(count("whole", "skipped on every stage: the loss "), skipped("whole").size());
  EXPECT_EQ(count("whole", "standard deviations above the mean of the last 16 steps"), skipped("whole").size());
  EXPECT_EQ(count("whole", "\"rolled back\""), 0u);

  auto cut = train("cut", settings);
  cut.insert(cut.end(), {"--set", "pipeline.stages=3"});
  expect_same_after("cut", cut, [&] {
    ASSERT_TRUE(reaches("cut", static_cast<std::size_t>(skipped("whole").front() - 10)));
    const pid_t coordinator = process("cut", "isthmus coordinator");
    ASSERT_GT(coordinator, 0);
    ::kill(coordinator, SIGKILL);
  });
  EXPECT_EQ(skipped("cut"), skipped("whole"));

  // The noise does harm if it is let in.
  auto open = train("open", settings);
  open.insert(open.end(), {"--set", "train.spike_sigma=0", "--set", "pipeline.stages=1"});
  const auto let_in = run(open);
  ASSERT_EQ(let_in.code, 0) << let_in.output;
  EXPECT_TRUE(skipped("open").empty());
  EXPECT_NE(summary("open")["weights_hash"], summary("whole")["weights_hash"]);
}

// Weights that grow until they are no numbers any more: the run goes back, and when that does not help it ends in
// order.
TEST_F(RunTest, GoesBackAndThenEndsWhenEveryStepIsBad) {
  const auto done = run(train("wild", {"--set", "run.steps=300", "--set", "train.learning_rate=1000", "--set",
                                       "checkpoint.every=1", "--set", "checkpoint.keep=20"}));
  EXPECT_EQ(done.code, 1) << done.output;
  EXPECT_NE(done.output.find("9 steps in a row were bad, and there is no checkpoint to go back to"), std::string::npos)
      << done.output;
  EXPECT_GE(count("wild", "\"rolled back\""), 1u);
  EXPECT_GE(count("wild", "8 steps in a row were bad; the data of steps"), 1u);
  EXPECT_GE(count("wild", "its data is left out"), 8u);
  EXPECT_EQ(count("wild", "\"stopping\""), 1u);
  const json result = summary("wild");
  EXPECT_FALSE(result["finished"]);
  EXPECT_LT(result["steps"], 200);
  expect_nothing_left("wild");
}

TEST_F(RunTest, GoesOnWithoutCheckpointsWhenTheDiskIsFull) {
  const std::vector<std::string> settings = {"--set", "run.steps=6", "--set", "model.hidden=128"};
  ASSERT_EQ(run(train("whole", settings)).code, 0);
  const auto done = run(train("full", settings), [] {
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  });
  EXPECT_EQ(done.code, 1) << done.output;
  EXPECT_NE(done.output.find("cannot write the checkpoint file"), std::string::npos) << done.output;
  EXPECT_NE(done.output.find("the final checkpoint of stage 0"), std::string::npos) << done.output;
  EXPECT_EQ(summary("full")["weights_hash"], summary("whole")["weights_hash"]);
  expect_nothing_left("full");
}

// No worker's memory or files hold a parameter of another stage.
TEST_F(RunTest, KeepsEveryStagesParametersApart) {
  const std::string output = folder_ + "/apart.txt";
  // Steps so small that no weight moves: what a checkpoint says is what its stage's memory holds.
  const pid_t parent = start(
      train("apart", {"--set", "run.steps=100000", "--set", "pipeline.stages=4", "--set", "train.learning_rate=1e-30"}),
      output);
  ASSERT_TRUE(reaches("apart", 12));
  std::vector<pid_t> workers;
  for (int peer = 1; peer <= 4; ++peer) workers.push_back(worker("apart", peer));
  for (const pid_t worker : workers) {
    ASSERT_GT(worker, 0);
    ::kill(worker, SIGSTOP);
  }
  // Of its own weights, and of the weights and moments of the others: runs of four numbers that nobody has by chance.
  std::vector<Marks> own(4), others(4);
  for (int stage = 0; stage < 4; ++stage)
    for (const auto& entry :
         fs::recursive_directory_iterator(folder_ + "/apart/checkpoint/stage-" + std::to_string(stage)))
      for (int holder = 0; holder < 4; ++holder) {
        const std::string file = entry.path().filename();
        if (holder == stage && file == "weights.safetensors") own[holder].add_tensors(entry.path(), 512);
        if (holder != stage && file.ends_with(".safetensors")) others[holder].add_tensors(entry.path(), 512);
      }
  const auto memory_of = [&](pid_t pid) {
    std::string all;
    std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
    const int memory = ::open(("/proc/" + std::to_string(pid) + "/mem").c_str(), O_RDONLY);
    for (std::string line; std::getline(maps, line);) {
      unsigned long from = 0, to = 0;
      char access[5] = "";
      if (std::sscanf(line.c_str(), "%lx-%lx %4s", &from, &to, access) != 3 || access[0] != 'r' || access[1] != 'w')
        continue;
      std::string part(to - from, '\0');
      const ssize_t n = ::pread(memory, part.data(), part.size(), static_cast<off_t>(from));
      if (n > 0) all.append(part, 0, static_cast<std::size_t>(n));
    }
    ::close(memory);
    return all;
  };
  for (int holder = 0; holder < 4; ++holder) {
    const std::string memory = memory_of(workers[holder]);
    ASSERT_GT(memory.size(), 1'000'000u);
    ASSERT_GT(own[holder].size(), 20u);
    EXPECT_TRUE(own[holder].are_within(memory)) << "worker of stage " << holder;
    EXPECT_FALSE(others[holder].are_within(memory)) << "worker of stage " << holder << " holds another's weights";
  }
  for (const pid_t worker : workers) ::kill(worker, SIGCONT);
  ::kill(parent, SIGINT);
  (void)finish(parent, output);
  expect_nothing_left("apart");
}

TEST_F(RunTest, SimulatesItsProtocolAndReplaysASeed) {
  const auto simulate = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"simulate", folder_ + "/run.toml", "--set", "pipeline.replicas=2"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  };
  const auto once = simulate({"--seed", "5", "--json"}), twice = simulate({"--seed", "5", "--json"});
  ASSERT_EQ(once.code, 0) << once.output;
  EXPECT_EQ(once.output, twice.output);
  EXPECT_NE(once.output, simulate({"--seed", "6", "--json"}).output);
  EXPECT_TRUE(json::parse(once.output)["violations"].empty());
  const auto crashes = simulate({"--runs", "30", "--faults", "crash,stage-crash", "--count", "4"});
  EXPECT_EQ(crashes.code, 0) << crashes.output;
  EXPECT_NE(crashes.output.find("30 runs, 0 with violations"), std::string::npos) << crashes.output;
  EXPECT_EQ(simulate({"--faults", "earthquake"}).code, 2);
  // The README's.
  EXPECT_EQ(
      run({"simulate", ISTHMUS_SOURCE_DIR "/configs/webster.toml", "--any-shape", "--seed", "1", "--runs", "20"}).code,
      0);
}

TEST_F(RunTest, MeasuresItsCodecs) {
  const auto done = run({"bench", "codecs", folder_ + "/run.toml", "--seconds", "0.02", "--json"});
  ASSERT_EQ(done.code, 0) << done.output;
  const json found = json::parse(done.output);
  EXPECT_EQ(found["hidden"], 32);
  EXPECT_GE(found["codecs"].size(), 7u);
  for (const auto& codec : found["codecs"]) {
    EXPECT_GT(codec["encode_gb_per_second"], 0) << codec;
    EXPECT_GT(codec["decode_gb_per_second"], 0) << codec;
  }
  EXPECT_EQ(found["codecs"][0]["bytes_per_number"], 4.0);
  EXPECT_EQ(found["run"]["columns"], 8);
  EXPECT_GT(found["run"]["share"], 0);
  EXPECT_LT(found["run"]["share"], 1);
  // For people.
  const auto text = run({"bench", "codecs", folder_ + "/run.toml", "--seconds", "0.02"});
  EXPECT_EQ(text.code, 0);
  EXPECT_NE(text.output.find("int4, stochastic"), std::string::npos) << text.output;
}

TEST_F(RunTest, TrainsOnAVocabulary) {
  const std::string model = folder_ + "/W.model", t = folder_ + "/words.bin", v = folder_ + "/words-validation.bin";
  // The README's, but for the size: the text is small.
  const auto made = run({"data", "vocabulary", "--size", "330", "--out", model, folder_ + "/text"});
  ASSERT_EQ(made.code, 0) << made.output;
  EXPECT_EQ(made.output, "");
  const auto packed = run({"data", "pack", "--vocabulary", model, "--train", t, "--validation", v, folder_ + "/text"});
  ASSERT_EQ(packed.code, 0) << packed.output;
  EXPECT_NE(packed.output.find("bytes per token"), std::string::npos) << packed.output;
  EXPECT_NE(packed.output.find("model.vocabulary = 330"), std::string::npos) << packed.output;
  const auto figures = run(
      {"data", "pack", "--vocabulary", model, "--train", t, "--validation", v, "--force", "--json", folder_ + "/text"});
  EXPECT_GT(json::parse(figures.output)["validation"]["bytes_per_token"], 1.5);
  const std::vector<std::string> words = {"--set",           "run.steps=4", "--set",
                                          "data.train=" + t, "--set",       "data.validation=" + v};
  auto arguments = train("words", words);
  arguments.insert(arguments.end(), {"--set", "model.vocabulary=330"});
  const auto done = run(arguments);
  EXPECT_EQ(done.code, 0) << done.output;
  const auto refused = run(train("small", words));
  EXPECT_EQ(refused.code, 1);
  EXPECT_NE(refused.output.find("was packed with a vocabulary of 330, the run's is 256"), std::string::npos)
      << refused.output;
  const auto trigram = run({"data", "baseline", t, v});
  EXPECT_EQ(trigram.code, 1);
  EXPECT_NE(trigram.output.find("expected a byte shard"), std::string::npos) << trigram.output;
}

TEST_F(RunTest, LeavesALiveRunAlone) {
  // Each that is refused waits a second for the folder.
  whole_run(70);
  expect_same_after("live", train("live", {"--set", "run.steps=70"}), [&] {
    ASSERT_TRUE(reaches("live", 4));
    const std::string run_file = read(folder_ + "/live/run.toml");
    for (const char* how : {"--resume", "--force", "--trace"}) {
      const auto second = run(train("live", {how, "--set", "run.seed=7"}));
      EXPECT_EQ(second.code, 1) << second.output;
      EXPECT_NE(second.output.find("in use"), std::string::npos) << second.output;
    }
    EXPECT_EQ(read(folder_ + "/live/run.toml"), run_file);
    // It takes its worker back, so nobody changed its keys.
    kill_workers("live", {2});
  });
  EXPECT_EQ(losses("live"), losses("whole"));
}

TEST_F(RunTest, IsTheSameRunWithTheSameDataElsewhere) {
  whole_run(20);
  ASSERT_EQ(run(train("moved", {"--set", "run.steps=12", "--set", "train.schedule_steps=20"})).code, 0);
  fs::create_directories(folder_ + "/elsewhere");
  for (const char* shard : {"train.bin", "validation.bin"})
    fs::rename(folder_ + "/" + shard, folder_ + "/elsewhere/" + shard);
  std::ofstream(folder_ + "/elsewhere/host.toml") << "[data]\ntrain = \"train.bin\"\nvalidation = \"validation.bin\"\n"
                                                     "[recovery]\njournal_mb = 7\n";
  const auto resumed = run(train("moved", {"--resume", "--host", folder_ + "/elsewhere/host.toml"}));
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_EQ(summary("moved")["weights_hash"], summary("whole")["weights_hash"]);
  std::ofstream(folder_ + "/elsewhere/train.bin", std::ios::app) << "x";
  const auto other = run(train("other", {"--host", folder_ + "/elsewhere/host.toml"}));
  EXPECT_EQ(other.code, 1) << other.output;
}

TEST_F(RunTest, SaysWhatIsWrongAndWhatToDo) {
  const auto expect = [&](const Finished& done, int code, const std::vector<std::string>& words) {
    EXPECT_EQ(done.code, code) << done.output;
    for (const auto& word : words)
      EXPECT_NE(done.output.find(word), std::string::npos) << "'" << word << "' is not in: " << done.output;
  };
  expect(run({"trian"}), 2, {"did you mean train"});
  expect(run({"train", folder_ + "/run.toml", "--resum"}), 2, {"did you mean --resume"});
  expect(run({"train", folder_ + "/none.toml"}), 78, {"none.toml"});
  expect(run(train("bad", {"--set", "boundary.rank=99", "--set", "model.heads=5"})), 78,
         {"boundary.rank", "model.heads", "2 problems"});
  expect(run(train("bad", {"--set", "data.train=none.bin"})), 1, {"none.bin", "isthmus data pack"});
  expect(run(train("bad", {"--set", "model.vocabulary=100"})), 1,
         {"packed with a vocabulary of 256", "the run's is 100", "model.vocabulary"});
  fs::copy_file(folder_ + "/train.bin", folder_ + "/cut.bin");
  fs::resize_file(folder_ + "/cut.bin", fs::file_size(folder_ + "/cut.bin") - 1);
  expect(run({"coordinator", folder_ + "/run.toml", "--out", folder_ + "/bad", "--set",
              "data.train=" + folder_ + "/cut.bin"}),
         1, {"cut.bin"});
  EXPECT_FALSE(fs::exists(folder_ + "/bad"));
  expect(run(train("bad", {"--resume"})), 1, {"no run to resume"});
  EXPECT_FALSE(fs::exists(folder_ + "/bad"));
  const int taken = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(taken, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(taken, 1), 0);
  ::getsockname(taken, reinterpret_cast<sockaddr*>(&address), &size);
  expect(run(train("port", {"--port", std::to_string(ntohs(address.sin_port))})), 1, {"in use", "--port"});
  expect_nothing_left("port");
  ::close(taken);
  EXPECT_EQ(run(train("port", {"--set", "run.steps=2", "--set", "train.warmup_steps=1"})).code, 0);
  ASSERT_EQ(run(train("good", {"--set", "run.steps=6"})).code, 0);
  const std::string before = read(folder_ + "/good/metrics.jsonl");
  expect(run(train("good")), 1, {"already holds a run", "--resume"});
  expect(run(train("good", {"--resume", "--set", "train.learning_rate=1"})), 1, {"train.learning_rate"});
  for (const char* stage : {"stage-0", "stage-1"})
    fs::remove_all(folder_ + "/good/checkpoint/" + stage + "/step-00000006");
  fs::resize_file(folder_ + "/good/checkpoint/stage-1/step-00000005/weights.safetensors", 1000);
  expect(run(train("good", {"--resume", "--set", "run.steps=6"})), 1, {"weights.safetensors", "truncated"});
  EXPECT_EQ(before.substr(0, 100), read(folder_ + "/good/metrics.jsonl").substr(0, 100));
}

}  // namespace
