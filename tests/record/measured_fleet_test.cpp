#include "record/measured_fleet.h"

#include <gmock/gmock.h>

#include "config/load_run.h"
#include "scheduler/planner/plan_fleet.h"

namespace isthmus::record {
namespace {

constexpr const char* kRun = R"([data]
train = "train.bin"
validation = "validation.bin"
[link]
bandwidth_mbps = 70
latency_ms = 44
[pipeline]
replicas = 2
layout = "auto"
stages = 3
)";

class MeasuredFleet : public ::testing::Test {
 protected:
  MeasuredFleet() {
    for (std::uint32_t peer : {1u, 2u, 3u}) {
      auto& worker = status_.workers.emplace_back();
      worker.peer = PeerId(peer);
      worker.device.memory_bytes = std::uint64_t{peer} << 33;
      worker.device.layer = {std::chrono::milliseconds(10 * peer), std::chrono::milliseconds(11),
                             std::chrono::microseconds(12500)};
    }
    device(3).head = {std::chrono::milliseconds(5), std::chrono::milliseconds(6), std::chrono::milliseconds(7)};
  }
  protocol::DeviceFigures& device(std::uint32_t peer) { return status_.workers[peer - 1].device; }
  std::string text() const { return measured_fleet(*config::parse_run(kRun, "run.toml"), status_); }
  spec::RunConfig merged() const {
    const config::FileText fleet{text(), "fleet.toml"};
    const auto run = config::parse_run(kRun, "run.toml", {}, &fleet);
    if (!run) {
      for (const auto& problem : run.error()) ADD_FAILURE() << problem.text();
      return {};
    }
    return *run;
  }

  coordinator::RunStatus status_;
};

TEST_F(MeasuredFleet, IsWhatTheWorkersReported) {
  const spec::RunConfig run = merged();
  ASSERT_EQ(run.fleet.machine.size(), 3u);
  const auto& machine = run.fleet.machine[1];
  EXPECT_EQ(machine.name, "worker-2");
  EXPECT_NEAR(machine.memory_gb, 17.1799, 1e-4);
  EXPECT_EQ(machine.forward_ms, 20);
  EXPECT_EQ(machine.input_gradient_ms, 11);
  EXPECT_EQ(machine.weight_gradient_ms, 12.5);
  EXPECT_EQ(machine.uplink_mbps, 70);
  // Nothing was measured, so [link] holds.
  EXPECT_TRUE(run.fleet.link.empty());
  EXPECT_EQ(run.fleet.machine[1].head_ms, 0);
  EXPECT_EQ(run.fleet.machine[2].head_ms, 18);
}

TEST_F(MeasuredFleet, GivesPairsThatWereNotMeasuredTheRunsLink) {
  status_.links = {{PeerId(1), PeerId(2), {90e6, std::chrono::microseconds(31500), seconds(12)}}};
  status_.workers[1].rates = {20e6, 90e6};
  const spec::RunConfig run = merged();
  ASSERT_EQ(run.fleet.link.size(), 2u);
  EXPECT_EQ(run.fleet.link[0].mbps, 70);
  EXPECT_EQ(run.fleet.link[0].latency_ms, 44);
  EXPECT_EQ(run.fleet.link[1], (spec::RunConfig::FleetLink{{"worker-1", "worker-2"}, 90, 31.5}));
  EXPECT_EQ(run.fleet.machine[1].uplink_mbps, 20);
  EXPECT_EQ(run.fleet.machine[1].downlink_mbps, 90);
  EXPECT_EQ(run.fleet.machine[2].uplink_mbps, 70);
  EXPECT_THAT(text(), testing::HasSubstr("measured 12 s before"));
  const auto plan = planner::plan_fleet(run);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->fleet.links.at(plan->fleet.machines[0].site, plan->fleet.machines[1].site).latency,
            std::chrono::microseconds(31500));
}

TEST_F(MeasuredFleet, LeavesOutWhoHasNotSaidAnything) {
  device(2) = {};
  status_.links = {{PeerId(1), PeerId(2), {90e6, std::chrono::milliseconds(30), seconds(12)}}};
  EXPECT_THAT(text(), testing::AllOf(testing::HasSubstr("worker-1"), testing::Not(testing::HasSubstr("worker-2")),
                                     testing::HasSubstr("worker-3")));
}

TEST_F(MeasuredFleet, CanBeReadBackHoweverFastOrSlowSomethingWas) {
  device(1).layer = {};
  device(2).layer = {std::chrono::hours(1), std::chrono::nanoseconds(1), std::chrono::hours(1)};
  status_.links = {{PeerId(1), PeerId(2), {1e12, {}, {}}}};
  status_.workers[0].rates = {0.5, 1e12};
  EXPECT_EQ(merged().fleet.machine.size(), 3u);
}

}  // namespace
}  // namespace isthmus::record
