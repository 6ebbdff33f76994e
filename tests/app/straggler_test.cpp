// A device that becomes slow in the middle of a step, as real processes: whatever its siblings take over is counted
// once.

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "app/command_line_test.h"

namespace {

using nlohmann::json;

// The parameter: which worker, counted stage by stage.
class StragglerTest : public CommandLineTest, public ::testing::WithParamInterface<int> {
 protected:
  void SetUp() override {
    CommandLineTest::SetUp();
    end_run_file(R"([pipeline]
device = "emulated"
[[pipeline.stage]]
layers = "0:2"
replicas = 2
[[pipeline.stage]]
layers = "2:4"
replicas = 2
[emulated]
forward_ms = 10
input_gradient_ms = 10
weight_gradient_ms = 10
[checkpoint]
every = 0
)");
  }
  json train(const std::string& out, std::vector<std::string> settings) const {
    std::vector<std::string> arguments = {"train", "--trace", folder_ + "/run.toml", "--out", folder_ + "/" + out};
    for (const std::string set :
         {"run.steps=4", "train.microbatches_per_step=16", "train.evaluate_every=0", "train.evaluation_microbatches=0"})
      settings.push_back(set);
    for (const auto& set : settings) arguments.insert(arguments.end(), {"--set", set});
    const auto done = run(arguments);
    EXPECT_EQ(done.code, 0) << done.output;
    return done.code == 0 ? json::parse(read(folder_ + "/" + out + "/summary.json")) : json();
  }
  // Microbatches that the worker began in this step, by its trace.
  std::ptrdiff_t begun(const std::string& out, int step) const {
    const json trace = json::parse(read(folder_ + "/" + out + "/trace.json"));
    return std::ranges::count_if(trace["traceEvents"], [&](const json& event) {
      return event["ph"] == "X" && event["pid"] == GetParam() && event["tid"] == 0 &&
             event["name"].get<std::string>().ends_with(" step " + std::to_string(step));
    });
  }
  std::ptrdiff_t dealt(const std::string& out) const {
    std::istringstream lines(read(folder_ + "/" + out + "/events.jsonl"));
    std::ptrdiff_t count = 0;
    for (std::string line; std::getline(lines, line);) {
      const json event = json::parse(line);
      count += event["event"] == "dealt" && event["peer"] == GetParam();
    }
    return count;
  }
};

TEST_P(StragglerTest, CountsEveryMicrobatchOnceWhoeverTakesItOver) {
  const json whole = train("whole", {});
  // The step has just begun.
  const json slow = train("slow", {"emulated.slow_peer=" + std::to_string(GetParam()), "emulated.slow_factor=10",
                                   "emulated.slow_step=3", "emulated.slow_after=2"});
  ASSERT_TRUE(whole.contains("weights_hash") && slow.contains("weights_hash"));
  EXPECT_EQ(slow["weights_hash"], whole["weights_hash"]);
  // Two at full speed, two until it is found out, and what it does of the rest while its sibling does ten times as
  // much.
  EXPECT_LE(begun("slow", 3), 6);
  // Only what a head has not begun is dealt by the coordinator; of other stages it is taken back by those before.
  if (GetParam() == 1) {
    EXPECT_GE(dealt("slow"), 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Of, StragglerTest, ::testing::Values(1, 3),
                         [](const auto& p) { return "Worker" + std::to_string(p.param); });

}  // namespace
