// Sweeps through the command line: real processes and files.

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "app/command_line_test.h"

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class SweepTest : public CommandLineTest {
 protected:
  void SetUp() override {
    CommandLineTest::SetUp();
    write_sweep("");
  }
  void write_sweep(const std::string& narrow_set, const std::string& more_rows = "") const {
    std::ofstream(folder_ + "/sweep.toml") << R"(base = "run.toml"
seeds = [1, 2]
set = ["run.steps=12", "train.evaluate_every=4"]
links = [{bandwidth_mbps = 80, latency_ms = 50}, {bandwidth_mbps = 8, latency_ms = 0}]
baseline = "dense"
reference = "dense"
[[row]]
name = "dense"
set = ["boundary.codec=identity"]
[[row]]
name = "narrow"
set = [)" << narrow_set << "]\n" << more_rows;
  }
  std::vector<std::string> sweep(const std::string& out, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"bench", "convergence", folder_ + "/sweep.toml", "--out",
                                          folder_ + "/" + out};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  std::vector<json> lines(const std::string& path) const {
    std::istringstream text(read(folder_ + "/" + path));
    std::vector<json> all;
    for (std::string line; std::getline(text, line);) all.push_back(json::parse(line));
    return all;
  }
  std::string run_path(const std::string& out, const std::string& run) const {
    return folder_ + "/" + out + "/runs/" + run + ".json";
  }
  fs::file_time_type written(const std::string& out, const std::string& run) const {
    return fs::last_write_time(run_path(out, run));
  }
  // Without what depends on the time of day.
  std::vector<json> curves(const std::string& out) const {
    std::vector<json> all;
    for (const auto& line : lines(out + "/results.jsonl"))
      all.push_back({line["row"], line["seed"], line["curve"], line["validation_loss"]});
    return all;
  }
  // Waits until the run has left its result.
  bool finishes(const std::string& out, const std::string& run) const {
    return eventually([&] { return fs::exists(run_path(out, run)); });
  }
};

TEST_F(SweepTest, GivesEveryRowAndSeedAndDoesNothingTheSecondTime) {
  // The README's, but for the folder.
  const auto done = run(sweep("out", {"--jobs", "2"}));
  ASSERT_EQ(done.code, 0) << done.output;
  const auto results = lines("out/results.jsonl");
  ASSERT_EQ(results.size(), 4u);
  for (const auto& result : results) {
    const bool dense = result["row"] == "dense";
    // fp32 numbers: the hidden state of 32, or 8 coefficients; ids of one byte, one more than the context per sequence.
    EXPECT_EQ(result["bytes_per_token_hop"]["forward"], dense ? 128 : 32);
    EXPECT_EQ(result["bytes_per_token_hop"]["backward"], dense ? 128 : 32);
    EXPECT_EQ(result["bytes_per_token_hop"]["token_ids"], 33.0 / 32);
    ASSERT_EQ(result["curve"].size(), 12u);
    EXPECT_EQ(result["curve"][11]["tokens"], 12 * 4 * 2 * 32);
    EXPECT_EQ(result["curve"][11]["bytes"], 12 * 4 * 2 * (32 * (dense ? 256 : 64) + 33));
    EXPECT_FALSE(result["curve"][0].contains("validation_loss"));
    EXPECT_TRUE(result["curve"][3].contains("validation_loss"));
    EXPECT_EQ(result["curve"][11]["validation_loss"], result["validation_loss"]);
    EXPECT_LT(result["validation_loss"], result["curve"][0]["loss"]);
    EXPECT_EQ(result["config"]["run"]["seed"], result["seed"]);
    // The latency of the pipeline's two crossings and of the commit, at least.
    EXPECT_GT(result["links"][0]["predicted_step_seconds"], 0.2);
    EXPECT_EQ(result["links"].size(), 2u);
    if (dense) {
      EXPECT_EQ(result["baseline_gap"]["percent"], 0.0);
    }
  }
  EXPECT_NE(results[0]["validation_loss"], results[1]["validation_loss"]);  // another seed
  const std::string table = read(folder_ + "/out/table.md"), report = read(folder_ + "/out/report.html");
  for (const char* word : {"| dense |", "| narrow |", "32 + 32", "2×", "| narrow (dense) |", " 12–12 |"})
    EXPECT_NE(table.find(word), std::string::npos) << word << "\n" << table;
  EXPECT_NE(done.output.find(table), std::string::npos) << done.output;
  for (const char* word : {"<svg", "narrow", "8 Mb/s, 0 ms", "Training loss against the reference"})
    EXPECT_NE(report.find(word), std::string::npos) << word;
  EXPECT_EQ(report.find("nan"), std::string::npos);

  const auto before = written("out", "narrow-seed2");
  const auto again = run(sweep("out"));
  ASSERT_EQ(again.code, 0) << again.output;
  EXPECT_NE(again.output.find("4 of 4 runs are in"), std::string::npos) << again.output;
  EXPECT_EQ(written("out", "narrow-seed2"), before);
  EXPECT_EQ(lines("out/results.jsonl"), results);

  // What has become another run is run again, and nothing else.
  write_sweep("\"boundary.rank=4\"");
  const auto changed = run(sweep("out", {"--json"}));
  ASSERT_EQ(changed.code, 0) << changed.output;
  EXPECT_NE(changed.output.find("2 of 4 runs are in"), std::string::npos) << changed.output;
  EXPECT_NE(written("out", "narrow-seed2"), before);
  const json rows = json::parse(changed.output.substr(changed.output.find("\n{") + 1))["rows"];
  EXPECT_EQ(rows[1]["columns"], 4);
  EXPECT_EQ(rows[1]["dense_ratio"], 4.0);
  EXPECT_EQ(rows[1]["seeds"], 2);

  // Step by step, and each seed against the same one: rows come in the order of the sweep, seeds within them.
  const auto now = lines("out/results.jsonl");
  EXPECT_FALSE(rows[0].contains("training_gap_percent"));
  const json gaps = rows[1]["training_gap_percent"];
  ASSERT_EQ(gaps.size(), 12u);
  for (std::size_t i = 0; i < gaps.size(); ++i) {
    double mean = 0;
    for (const std::size_t seed : {0u, 1u})
      mean += (now[2 + seed]["curve"][i]["loss"].get<double>() / now[seed]["curve"][i]["loss"].get<double>() - 1) * 50;
    EXPECT_NEAR(gaps[i]["mean"].get<double>(), mean, 1e-9);
    EXPECT_EQ(gaps[i]["first_step"], i + 1);
    EXPECT_EQ(gaps[i]["last_step"], i + 1);
  }
  EXPECT_NE(gaps[11]["mean"], 0.0);
}

TEST_F(SweepTest, HasTheLossesOfTrain) {
  ASSERT_EQ(run(sweep("out")).code, 0);
  for (const std::string codec : {"identity", "subspace"}) {
    const std::string out = folder_ + "/train-" + codec;
    const auto done = run({"train", folder_ + "/run.toml", "--out", out, "--set", "run.steps=12", "--set",
                           "train.evaluate_every=4", "--set", "run.seed=2", "--set", "boundary.codec=" + codec});
    ASSERT_EQ(done.code, 0) << done.output;
    const auto results = lines("out/results.jsonl");
    const auto& curve = results[codec == "identity" ? 1 : 3]["curve"];
    std::size_t compared = 0;
    for (const auto& line : lines("train-" + codec + "/metrics.jsonl")) {
      const auto& point = curve[line["step"].get<std::size_t>() - 1];
      const char* key = line.contains("loss") ? "loss" : "validation_loss";
      EXPECT_EQ(point.at(key), line[key]) << codec << " step " << line["step"];
      ++compared;
    }
    EXPECT_EQ(compared, 15u);  // 12 steps, evaluations after 4, 8 and 12
  }
}

TEST_F(SweepTest, LeavesOutAStageForTheStepsThatItIsGone) {
  const std::string gone = "absent = {stage = 1, from = 4, steps = 3}\n";
  std::ofstream(folder_ + "/sweep.toml")
      << "base = \"run.toml\"\nseeds = [1]\nset = [\"run.steps=8\", \"pipeline.layout=auto\", \"pipeline.stages=3\", "
         "\"model.layers=3\"]\n[[row]]\nname = \"whole\"\n[[row]]\nname = \"gone\"\n"
      << gone;
  ASSERT_EQ(run(sweep("out")).code, 0);
  const auto results = lines("out/results.jsonl");
  const json whole = results[0]["curve"], without = results[1]["curve"];
  for (std::size_t i = 0; i < 8; ++i) {
    // The same until it is gone; then two boundaries become one, and with them their bytes.
    EXPECT_EQ(whole[i]["loss"] == without[i]["loss"], i < 3) << i + 1;
    const auto crossed = [&](const json& curve) {
      return curve[i]["bytes"].get<std::uint64_t>() - (i == 0 ? 0 : curve[i - 1]["bytes"].get<std::uint64_t>());
    };
    EXPECT_EQ(crossed(without), i >= 3 && i < 6 ? crossed(whole) / 2 : crossed(whole)) << i + 1;
  }
  const auto first = written("out", "gone-seed1");
  ASSERT_EQ(run(sweep("out")).code, 0);
  EXPECT_EQ(written("out", "gone-seed1"), first);
}

TEST_F(SweepTest, SkipsTheStepsThatTrainSkips) {
  noisy_run();
  std::ofstream(folder_ + "/sweep.toml")
      << "base = \"run.toml\"\nseeds = [1]\nset = " << json(noisy())
      << "\nbaseline = \"row\"\nreference = \"row\"\n[[row]]\nname = \"row\"\nset = []\n";
  const auto swept = run(sweep("out"));
  ASSERT_EQ(swept.code, 0) << swept.output;
  std::size_t skipped = 0;
  const json curve = lines("out/results.jsonl")[0]["curve"];
  for (const auto& line : lines("whole/metrics.jsonl")) {
    if (!line.contains("loss")) continue;
    const auto& point = curve[line["step"].get<std::size_t>() - 1];
    EXPECT_EQ(point["loss"], line["loss"]) << line["step"];
    EXPECT_EQ(point.contains("skipped_step"), line.contains("skipped_step")) << line["step"];
    skipped += line.contains("skipped_step");
  }
  EXPECT_GT(skipped, 0u);
}

TEST_F(SweepTest, GoesOnAfterItWasKilled) {
  ASSERT_EQ(run(sweep("whole")).code, 0);
  for (const int how : {SIGKILL, SIGINT}) {
    const std::string out = how == SIGINT ? "stopped" : "killed";
    const std::string output = folder_ + "/" + out + ".txt";
    const pid_t parent = start(sweep(out, {"--jobs", "1"}), output);
    ASSERT_TRUE(finishes(out, "dense-seed1"));
    ::kill(parent, how);
    const auto ended = finish(parent, output);
    EXPECT_EQ(ended.code, how == SIGINT ? 130 : 128 + SIGKILL) << ended.output;
    if (how == SIGINT) {
      EXPECT_NE(ended.output.find("goes on from there"), std::string::npos) << ended.output;
    }
    EXPECT_FALSE(fs::exists(folder_ + "/" + out + "/table.md"));
    EXPECT_FALSE(fs::exists(run_path(out, "narrow-seed2")));
    const auto first = written(out, "dense-seed1");
    const auto resumed = run(sweep(out, {"--jobs", "1"}));
    ASSERT_EQ(resumed.code, 0) << resumed.output;
    EXPECT_NE(resumed.output.find("of 4 runs are in"), std::string::npos) << resumed.output;
    EXPECT_EQ(written(out, "dense-seed1"), first);
    EXPECT_EQ(curves(out), curves("whole"));
  }
}

TEST_F(SweepTest, FinishesTheOtherRowsWhenOneFails) {
  // In the place where the result should go there is a folder.
  fs::create_directories(run_path("out", "narrow-seed1"));
  const auto done = run(sweep("out"));
  EXPECT_EQ(done.code, 1) << done.output;
  EXPECT_NE(done.output.find("error: narrow seed 1: cannot write"), std::string::npos) << done.output;
  EXPECT_EQ(lines("out/results.jsonl").size(), 3u);
  EXPECT_TRUE(fs::exists(folder_ + "/out/report.html"));
}

TEST_F(SweepTest, SaysEverythingThatIsWrongAtOnce) {
  write_sweep("\"boundary.rank=99\", \"boundary.rnak=3\"", "[[row]]\nname = \"dense\"\nrefrence = \"dens\"\n");
  const auto done = run(sweep("out"));
  EXPECT_EQ(done.code, 78) << done.output;
  for (const char* words : {"sweep.toml:12:7: row \"narrow\": boundary.rank is 99, expected at most model.hidden = 32",
                            "row \"narrow\": unknown key \"rnak\" in boundary, did you mean \"rank\"?",
                            "sweep.toml:14:8: there are two rows \"dense\"",
                            "unknown key \"refrence\" in row[2], did you mean \"reference\"?", "4 problems"})
    EXPECT_NE(done.output.find(words), std::string::npos) << words << "\n" << done.output;
  EXPECT_FALSE(fs::exists(folder_ + "/out"));
  write_sweep("");
  fs::remove(folder_ + "/train.bin");
  EXPECT_EQ(run(sweep("out")).code, 1);
  EXPECT_FALSE(fs::exists(folder_ + "/out"));
}

}  // namespace
