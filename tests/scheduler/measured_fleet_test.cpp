#include "scheduler/measured_fleet.h"

#include <gmock/gmock.h>

#include "config/load_run.h"
#include "scheduler/plan_fleet.h"

namespace isthmus {
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
      Report& report = reports_[PeerId(peer)];
      report.device.memory_bytes = std::uint64_t{peer} << 33;
      report.device.layer = {std::chrono::milliseconds(10 * peer), std::chrono::milliseconds(11), std::chrono::microseconds(12500)};
      live_.push_back({PeerId(peer), SessionId(peer), StageId(peer - 1), ReplicaId(0), {}, {}});
    }
    reports_[PeerId(3)].device.head = {std::chrono::milliseconds(5), std::chrono::milliseconds(6), std::chrono::milliseconds(7)};
  }
  std::string text() const { return measured_fleet(*parse_run(kRun, "run.toml"), reports_, survey_, now_ + seconds(12)); }
  RunConfig merged() const {
    const FleetText fleet{text(), "fleet.toml"};
    const auto run = parse_run(kRun, "run.toml", {}, &fleet);
    if (!run) {
      for (const auto& problem : run.error()) ADD_FAILURE() << problem.text();
      return {};
    }
    return *run;
  }

  std::map<PeerId, Report> reports_;
  std::vector<Member> live_;
  LinkSurvey survey_{seconds(60)};
  const Time now_ = seconds(100);
};

TEST_F(MeasuredFleet, IsWhatTheWorkersReported) {
  const RunConfig run = merged();
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
  const auto measuring = survey_.turn(live_, now_);
  ASSERT_EQ(measuring, (std::vector{PeerId(2), PeerId(1)}));
  survey_.record(PeerId(2), {survey_.order_of(PeerId(2)), std::chrono::microseconds(31500), 20e6, 90e6}, now_);
  const RunConfig run = merged();
  ASSERT_EQ(run.fleet.link.size(), 2u);
  EXPECT_EQ(run.fleet.link[0].mbps, 70);
  EXPECT_EQ(run.fleet.link[0].latency_ms, 44);
  EXPECT_EQ(run.fleet.link[1], (RunConfig::FleetLink{{"worker-1", "worker-2"}, 90, 31.5}));
  EXPECT_EQ(run.fleet.machine[1].uplink_mbps, 20);
  EXPECT_EQ(run.fleet.machine[1].downlink_mbps, 90);
  EXPECT_EQ(run.fleet.machine[2].uplink_mbps, 70);
  EXPECT_THAT(text(), testing::HasSubstr("measured 12 s before"));
  const auto plan = plan_fleet(run);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->fleet.links.at(plan->fleet.machines[0].site, plan->fleet.machines[1].site).latency, std::chrono::microseconds(31500));
}

TEST_F(MeasuredFleet, LeavesOutWhoHasNotSaidAnything) {
  reports_[PeerId(2)].device = {};
  EXPECT_THAT(text(), testing::AllOf(testing::HasSubstr("worker-1"), testing::Not(testing::HasSubstr("worker-2")), testing::HasSubstr("worker-3")));
}

TEST_F(MeasuredFleet, CanBeReadBackHoweverFastOrSlowSomethingWas) {
  reports_[PeerId(1)].device.layer = {};
  reports_[PeerId(2)].device.layer = {std::chrono::hours(1), std::chrono::nanoseconds(1), std::chrono::hours(1)};
  (void)survey_.turn(live_, now_);
  survey_.record(PeerId(2), {survey_.order_of(PeerId(2)), {}, 1e12, 0.5}, now_);
  EXPECT_EQ(merged().fleet.machine.size(), 3u);
}

}  // namespace
}  // namespace isthmus
