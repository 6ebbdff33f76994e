// What a run finds out about its machines and links, and what a plan makes of it.

#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <string>
#include <vector>

#include "app/command_line_test.h"
#include "config/load_run.h"

namespace {

using isthmus::spec::RunConfig;

class MeasureTest : public CommandLineTest {
 protected:
  static std::size_t count(const std::string& text, const std::string& what) {
    std::size_t found = 0;
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
    return found;
  }
  RunConfig with_fleet(const std::string& out) const {
    const auto run = isthmus::config::load_run(out + "/run.toml", {}, out + "/fleet.toml");
    if (run) return *run;
    for (const auto& problem : run.error()) ADD_FAILURE() << problem.text();
    return {};
  }
};

TEST_F(MeasureTest, KnowsShapedLinksAndDevicesAndPlansForThem) {
  constexpr double kLatency = 20, kRate = 40;
  const std::string out = folder_ + "/measured", output = folder_ + "/measured.txt";
  const pid_t parent = start({"train", folder_ + "/run.toml",
                              "--out", out,
                              "--set", "run.steps=1000000",
                              "--set", "pipeline.stages=3",
                              "--set", "pipeline.device=emulated",
                              "--set", "emulated.forward_ms=12",
                              "--set", "emulated.input_gradient_ms=24",
                              "--set", "emulated.weight_gradient_ms=9",
                              "--set", "emulated.slow_peer=2",
                              "--set", "emulated.slow_factor=3",
                              "--set", "checkpoint.every=0",
                              "--set", "link.measure_s=3600",
                              "--set", "link.latency_ms=20",
                              "--set", "link.bandwidth_mbps=40"},
                             output);
  // Of neighbours and of the two that exchange nothing in training.
  EXPECT_TRUE(eventually([&] { return count(read(out + "/fleet.toml"), "\n[[fleet.link]] # measured") == 3; }))
      << read(out + "/fleet.toml");
  ::kill(parent, SIGINT);
  const auto stopped = finish(parent, output);
  EXPECT_EQ(stopped.code, 130) << stopped.output;

  const RunConfig found = with_fleet(out);
  ASSERT_EQ(found.fleet.machine.size(), 3u);
  for (std::size_t s = 0; s < 3; ++s) {
    const auto& machine = found.fleet.machine[s];
    const double share =
        (s == 1 ? 3.0 : 1.0) / (found.pipeline.stage[s].end_layer - found.pipeline.stage[s].first_layer);
    EXPECT_NEAR(machine.forward_ms, 12 * share, 1e-3);
    EXPECT_NEAR(machine.input_gradient_ms, 24 * share, 1e-3);
    EXPECT_NEAR(machine.weight_gradient_ms, 9 * share, 1e-3);
    EXPECT_GT(machine.memory_gb, 0);
    EXPECT_LE(machine.uplink_mbps, kRate);
    EXPECT_LE(machine.downlink_mbps, kRate);
  }
  ASSERT_EQ(found.fleet.link.size(), 4u);
  for (std::size_t l = 1; l < 4; ++l) {
    EXPECT_GE(found.fleet.link[l].latency_ms, kLatency) << l;
    EXPECT_LE(found.fleet.link[l].mbps, kRate) << l;
    EXPECT_GT(found.fleet.link[l].mbps, 0) << l;
  }

  for (const std::vector<std::string>& more :
       {std::vector<std::string>{}, {"--set", "pipeline.layout=auto"}, {"--json"}}) {
    std::vector<std::string> arguments = {"plan", out + "/run.toml", "--measured", out + "/fleet.toml"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto planned = run(arguments);
    EXPECT_EQ(planned.code, 0) << planned.output;
    EXPECT_NE(planned.output.find("worker-3"), std::string::npos) << planned.output;
  }
}

TEST_F(MeasureTest, TimesTheLayersOfARealModelAndMeasuresNoLinkUnasked) {
  const std::string out = folder_ + "/real";
  const auto done =
      run({"train", folder_ + "/run.toml", "--out", out, "--set", "run.steps=2", "--set", "train.warmup_steps=1"});
  ASSERT_EQ(done.code, 0) << done.output;
  const RunConfig found = with_fleet(out);
  ASSERT_EQ(found.fleet.machine.size(), 2u);
  EXPECT_TRUE(found.fleet.link.empty());
  const std::string text = read(out + "/fleet.toml");
  EXPECT_EQ(count(text, "\nhead_ms = "), 1u) << text;
  EXPECT_EQ(count(text, "\nembedding_ms = "), 1u) << text;
  // The measurement's least is 1e-6.
  for (const auto& machine : found.fleet.machine)
    EXPECT_GT(std::min({machine.forward_ms, machine.input_gradient_ms, machine.weight_gradient_ms}), 1e-5) << text;
}

TEST_F(MeasureTest, SaysEverythingThatIsWrongWithAMeasuredFleet) {
  const std::string fleet = folder_ + "/fleet.toml";
  std::ofstream(fleet) << "[model]\nlayers = 1\n[[fleet.machine]]\nname = \"a\"\nmemory_gb = -1\ngflops = 1\n";
  const auto refused = run({"plan", folder_ + "/run.toml", "--measured", fleet});
  EXPECT_EQ(refused.code, 78);
  for (const std::string& said :
       {fleet + ":1:2: unknown table \"model\"", fleet + ":5:13: fleet.machine[0].memory_gb is -1",
        std::string("2 stages for 1 machine"), std::string("3 problems in ")})
    EXPECT_NE(refused.output.find(said), std::string::npos) << said << " is not in: " << refused.output;
  const auto none = run({"plan", folder_ + "/run.toml", "--measured", folder_ + "/none.toml"});
  EXPECT_EQ(none.code, 78);
  EXPECT_NE(none.output.find("none.toml: there is no such file"), std::string::npos) << none.output;
}

}  // namespace
