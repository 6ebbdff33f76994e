#include "scheduler/planner/plan_fleet.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/replicas_max.h"
#include "config/load_run.h"
#include "scheduler/planner/fleet_advice.h"
#include "scheduler/planner/fleet_text.h"
#include "scheduler/planner/spare_reasons.h"

namespace isthmus::planner {
namespace {

spec::RunConfig example(const std::vector<std::string>& overrides = {}) {
  const auto run = config::load_run(ISTHMUS_SOURCE_DIR "/configs/fleet.toml", overrides);
  EXPECT_TRUE(run.has_value());
  return *run;
}

// A small model on the machines of `fleet`, which may begin with other tables.
spec::RunConfig run_on(const std::string& fleet, const std::string& pipeline) {
  const auto run =
      config::parse_run("[data]\ntrain = \"t\"\nvalidation = \"v\"\n" +
                            std::string(fleet.starts_with("[train]") ? "" : "[train]\nmicrobatches_per_step = 32\n") +
                            "[pipeline]\n" + pipeline + fleet,
                        "run.toml");
  EXPECT_TRUE(run.has_value()) << run.error().front().text();
  return *run;
}

constexpr const char* kTwoUneven = R"(
[[fleet.machine]]
name = "slow"
memory_gb = 8
gflops = 100
[[fleet.machine]]
name = "fast"
memory_gb = 8
gflops = 300
)";

TEST(PlanFleet, GivesTheFasterMachineMoreLayers) {
  const auto plan = plan_fleet(run_on(kTwoUneven, "layout = \"auto\"\nstages = 2\n"));
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  const auto& map = plan->run.pipeline.stage;
  ASSERT_EQ(map.size(), 2u);
  const std::uint32_t fast = plan->placement[1];
  EXPECT_GE(map[fast].end_layer - map[fast].first_layer, 6u);
  EXPECT_EQ(plan->run.boundary.factored_layers, map[1].first_layer);
}

// A head that takes as long as six layers leaves its stage one of eight; one that takes nothing, half of them.
TEST(PlanFleet, CountsHeadAndEmbeddingAsTheyWereMeasured) {
  const auto layers_before_the_tail = [](const std::string& measured) {
    const std::string machine =
        "memory_gb = 8\nforward_ms = 10\ninput_gradient_ms = 10\nweight_gradient_ms = 10\n" + measured;
    const auto plan = plan_fleet(
        run_on("[model]\ntoken_path = \"none\"\n[boundary]\ncodec = \"identity\"\n[[fleet.machine]]\nname = \"a\"\n" +
                   machine + "[[fleet.machine]]\nname = \"b\"\n" + machine,
               "layout = \"auto\"\nstages = 2\n"));
    return plan ? plan->run.pipeline.stage[0].end_layer : 0;
  };
  EXPECT_EQ(layers_before_the_tail("head_ms = 0.001\nembedding_ms = 0.001\n"), 4u);
  EXPECT_EQ(layers_before_the_tail("head_ms = 180\n"), 7u);
  EXPECT_EQ(layers_before_the_tail("embedding_ms = 180\nhead_ms = 0.001\n"), 1u);
}

TEST(PlanFleet, FixesAnExplicitMapAndPlacesItsStages) {
  const auto plan = plan_fleet(run_on(kTwoUneven, "stage = [{layers = \"0:2\"}, {layers = \"2:8\"}]\n"));
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->placement, (Placement{0, 1}));
  EXPECT_EQ(plan->run.pipeline.stage[0].end_layer, 2u);
}

TEST(PlanFleet, ChoosesHowManyStages) {
  // Links that cost nothing worth mentioning let one stage with both machines win; slow ones for sums do not.
  const std::string
      dense = "[boundary]\ncodec = \"identity\"\n[sync]\nmode = \"exact\"\n[link]\nlatency_ms = 0.1\nbandwidth_mbps = ",
      near = dense + "100000\n", far = dense + "50\n";
  const auto together = plan_fleet(run_on(near + kTwoUneven, "layout = \"auto\"\n")),
             apart = plan_fleet(run_on(far + kTwoUneven, "layout = \"auto\"\n"));
  ASSERT_TRUE(together && apart);
  EXPECT_EQ(together->run.pipeline.stage.size(), 1u);
  EXPECT_EQ(together->run.pipeline.stage[0].replicas, 2u);
  EXPECT_EQ(apart->run.pipeline.stage.size(), 2u);
  EXPECT_GT(apart->simulation.step, together->simulation.step);
}

// Machines whose exact sums, of some millions of numbers, take seconds at 80 Mb/s and next to nothing at 10 Gb/s.
std::string alike(int count, const std::string& more = "") {
  return "[model]\nhidden = 1024\n[[fleet.machine]]\nname = \"m\"\ncount = " + std::to_string(count) +
         "\nmemory_gb = 32\ngflops = 2000\n" + more;
}

std::ptrdiff_t spares(const FleetPlan& plan) { return std::ranges::count(plan.placement, kSpare); }

// The plan assumed of its replicas what the run will do, and a run file says so.
void expect_agreement(const FleetPlan& plan, const std::string& mode) {
  EXPECT_EQ(plan.run.sync.mode, mode);
  bool several = false;
  for (std::size_t s = 0; s < plan.run.pipeline.stage.size(); ++s) {
    const bool replicated = plan.run.pipeline.stage[s].replicas > 1;
    several = several || replicated;
    EXPECT_EQ(plan.input.plan.stages[s].local, replicated && mode != "exact");
  }
  EXPECT_TRUE(several);
  EXPECT_EQ(plan.simulation.combination > Duration{}, mode == "exact");
  const auto again = config::parse_run(config::resolved_toml(plan.run), "resolved.toml");
  ASSERT_TRUE(again.has_value()) << again.error().front().text();
  EXPECT_EQ(again->sync, plan.run.sync);
}

TEST(PlanFleet, ChargesNoSumsToARunThatWillNotMakeThem) {
  for (const std::string layout :
       {"layout = \"auto\"\n", "layout = \"auto\"\nstages = 4\n", "layout = \"auto\"\nstages = 1\n"}) {
    const auto open = plan_fleet(run_on(alike(8), layout)),
               sparse = plan_fleet(run_on("[sync]\nmode = \"sparseloco\"\n" + alike(8), layout));
    ASSERT_TRUE(open && sparse);
    EXPECT_EQ(open->placement, sparse->placement) << layout;
    EXPECT_EQ(open->simulation.step, sparse->simulation.step) << layout;
    EXPECT_EQ(spares(*open), 0) << layout;
    expect_agreement(*open, "sparseloco");
  }
}

TEST(PlanFleet, DecidesHowReplicasOfAnExplicitMapAgreeOnceItHasThem) {
  const auto given = plan_fleet(run_on(alike(2), "stage = [{layers = \"0:8\"}]\n")),
             split = plan_fleet(run_on(alike(2), "layout = \"auto\"\nstages = 1\n"));
  ASSERT_TRUE(given && split);
  EXPECT_EQ(spares(*given), 0);
  expect_agreement(*given, "sparseloco");
  EXPECT_EQ(given->run, split->run);
  EXPECT_EQ(given->simulation.step, split->simulation.step);
}

// Three that would have done one microbatch when the others have done all, over lines on which no exact sum is quick.
TEST(PlanFleet, KeepsMachinesThatGetNoMicrobatchOutOfTheRun) {
  const std::string fleet =
      "[train]\nmicrobatches_per_step = 4\n"
      "[[fleet.machine]]\nname = \"fast\"\ncount = 2\nmemory_gb = 8\ngflops = 100\nuplink_mbps = 10000\n"
      "downlink_mbps = 10000\n"
      "[[fleet.machine]]\nname = \"slow\"\ncount = 3\nmemory_gb = 8\ngflops = 1\nuplink_mbps = 5\n"
      "downlink_mbps = 10000\n";
  for (const std::string layout : {"layout = \"auto\"\nstages = 1\n", "stage = [{layers = \"0:8\"}]\n"}) {
    const auto plan = plan_fleet(run_on(fleet, layout));
    ASSERT_TRUE(plan.has_value()) << plan.error().message;
    EXPECT_EQ(plan->placement, (Placement{0, 0, kSpare, kSpare, kSpare})) << layout;
    EXPECT_EQ(plan->run.pipeline.stage[0].replicas, 2u);
    expect_agreement(*plan, "exact");
    EXPECT_THAT(fleet_text(*plan), testing::HasSubstr("1 stages on 2 of 5 machines"));
    EXPECT_THAT(fleet_text(*plan), testing::HasSubstr("spare               0                     it would get no"));
    const auto json = nlohmann::json::parse(fleet_json(*plan));
    ASSERT_EQ(json["machines"].size(), 5u);
    EXPECT_THAT(json["machines"][4]["reason"].get<std::string>(), testing::HasSubstr("it would get no microbatch"));
  }
}

TEST(SpareMachines, SaysOfEachWhatIsMissing) {
  const auto reasons = [](const std::string& machine, const std::string& count) {
    const auto plan =
        plan_fleet(run_on("[train]\nmicrobatches_per_step = 260\n[[fleet.machine]]\nname = \"m\"\ncount = " + count +
                              "\nmemory_gb = 8\ngflops = 100\n[[fleet.machine]]\nname = \"n\"\n" + machine,
                          "layout = \"auto\"\nstages = 1\n"));
    std::vector<std::string> all;
    for (const auto& spare : spare_machines(*plan)) all.push_back(spare.reason);
    return all;
  };
  EXPECT_THAT(reasons("memory_gb = 0.001\ngflops = 100\n", "1"),
              testing::ElementsAre(testing::HasSubstr("its memory is less than any stage needs")));
  EXPECT_THAT(reasons("memory_gb = 8\ngflops = 100\n", "128"),
              testing::ElementsAre("every stage that it could hold has 128 replicas"));
  EXPECT_THAT(reasons("memory_gb = 8\ngflops = 0.1\n", "2"),
              testing::ElementsAre(testing::HasSubstr("it would get no microbatch")));
  EXPECT_THAT(reasons("memory_gb = 8\ngflops = 100\n", "2"), testing::IsEmpty());
}

TEST(PlanFleet, JudgesSumsByTheLinesOfTheMachines) {
  const auto planned = [](const std::string& link, const std::string& machine, const std::string& links = "") {
    return plan_fleet(run_on(link + alike(2, machine) + links, "layout = \"auto\"\nstages = 1\n"));
  };
  const std::string fast = "uplink_mbps = 10000\ndownlink_mbps = 10000\n",
                    slow = "uplink_mbps = 80\ndownlink_mbps = 10000\n";
  expect_agreement(*planned("[link]\nbandwidth_mbps = 80\n", fast), "exact");
  expect_agreement(*planned("[link]\nbandwidth_mbps = 10000\n", slow), "sparseloco");
  expect_agreement(*planned("[link]\nbandwidth_mbps = 80\n", fast,
                            "[[fleet.link]]\nbetween = [\"m\", \"m\"]\nmbps = 80\nlatency_ms = 5\n"),
                   "sparseloco");
  expect_agreement(*planned("[run]\ndeterministic = true\n[link]\nbandwidth_mbps = 10000\n", fast), "exact");
}

// The planner and the predictor count the same head.
TEST(PlanFleet, PredictsTheHeadAsItWasMeasured) {
  const auto step = [](const std::string& head) {
    return plan_fleet(run_on("[[fleet.machine]]\nname = \"a\"\nmemory_gb = 8\nforward_ms = 10\ninput_gradient_ms = "
                             "10\nweight_gradient_ms = 10\nembedding_ms = 1\nhead_ms = " +
                                 head,
                             "stage = [{layers = \"0:8\"}]\n"))
        ->simulation.step;
  };
  // 32 microbatches.
  EXPECT_NEAR(to_seconds(step("180\n")) - to_seconds(step("30\n")), 32 * .150, 1e-3);
}

TEST(PlanFleet, SaysWhyMachinesAreLeftOver) {
  const auto plan =
      plan_fleet(run_on("[train]\nmicrobatches_per_step = 260\n[[fleet.machine]]\nname = \"m\"\ncount = 130\nmemory_gb "
                        "= 8\ngflops = 100\n",
                        "layout = \"auto\"\nstages = 1\n"));
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->machine_of.size(), kReplicasMax);
  EXPECT_THAT(plan->remarks, testing::ElementsAre("1 of 1 stages have 128 replicas, as many as a stage may have; 2 "
                                                  "machines are spare, which from 2 stages on would have a place"));
}

TEST(PlanWithout, MovesOneMachineAtMost) {
  const auto plan = plan_fleet(example());
  ASSERT_TRUE(plan.has_value());
  for (std::size_t gone = 0; gone < plan->fleet.machines.size(); ++gone) {
    const auto next = plan_without(*plan, plan->fleet.machines[gone].name);
    ASSERT_TRUE(next.has_value()) << next.error().message;
    ASSERT_EQ(next->fleet.machines.size() + 1, plan->fleet.machines.size());
    int moved = 0;
    for (std::size_t m = 0; m < next->placement.size(); ++m)
      moved += next->placement[m] != plan->placement[m + (m >= gone)];
    EXPECT_LE(moved, 1);
    EXPECT_EQ(ends_of(next->run), ends_of(plan->run));
    // A stage that is left with one replica adds up no sums.
    for (std::size_t s = 0; s < plan->memory_bytes.size(); ++s) EXPECT_LE(next->memory_bytes[s], plan->memory_bytes[s]);
    ASSERT_FALSE(next->remarks.empty());
    EXPECT_THAT(next->remarks.back(), testing::HasSubstr(plan->fleet.machines[gone].name));
    EXPECT_THAT(fleet_text(*next), testing::HasSubstr(next->remarks.back()));
  }
  EXPECT_THAT(plan_without(*plan, "nobody").error().message, testing::HasSubstr("no machine nobody"));
}

TEST(PlanFleet, LeavesARunThatTrainsWithoutItsMachines) {
  const auto plan = plan_fleet(example());
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  EXPECT_TRUE(plan->run.fleet.machine.empty());
  const auto again = config::parse_run(config::resolved_toml(plan->run), "resolved.toml");
  ASSERT_TRUE(again.has_value()) << again.error().front().text();
  EXPECT_EQ(*again, plan->run);
  std::uint32_t replicas = 0;
  for (const auto& stage : plan->run.pipeline.stage) replicas += stage.replicas;
  EXPECT_EQ(replicas, plan->machine_of.size());
}

TEST(PlanFleet, IsTheSameEveryTime) {
  const auto a = plan_fleet(example()), b = plan_fleet(example());
  EXPECT_EQ(a->placement, b->placement);
  EXPECT_EQ(fleet_json(*a), fleet_json(*b));
}

TEST(PlanFleet, KeepsStagesWithinMemoryOrSaysWhyNot) {
  const auto plan = plan_fleet(example());
  for (std::size_t m = 0; m < plan->placement.size(); ++m)
    if (plan->placement[m] != kSpare) {
      EXPECT_LE(plan->memory_bytes[plan->placement[m]], plan->fleet.machines[m].memory_bytes);
    }
  // One machine could hold any layer, but nobody the rest.
  const auto none =
      plan_fleet(run_on("\n[[fleet.machine]]\nname = \"a\"\nmemory_gb = 0.3\ngflops = 1\n", "layout = \"auto\"\n"));
  ASSERT_FALSE(none.has_value());
  EXPECT_THAT(none.error().message,
              testing::HasSubstr("split into 1, stage 0 (layers 0:8) needs 4.59 GB, which no machine has, expected "
                                 "more than the 0.3 GB of a, the largest"));
}

// A stage with its layers, what it needs, and how many could hold it, where the user wrote what leads to it.
TEST(PlanFleet, NamesEveryStageThatFindsNoMachine) {
  const std::string fleet =
      "[[fleet.machine]]\nname = \"big\"\nmemory_gb = 8\ngflops = 9\n[[fleet.machine]]\nname = \"tiny\"\nmemory_gb = "
      "0.2\ngflops = 9\n";
  const auto told = [&](const std::string& pipeline) {
    const config::RunSource source{"[data]\ntrain = \"t\"\nvalidation = \"v\"\n[pipeline]\n" + pipeline + fleet,
                                   "run.toml"};
    const auto run = config::parse_run(source);
    EXPECT_TRUE(run.has_value()) << run.error().front().text();
    EXPECT_FALSE(plan_fleet(*run).has_value());
    std::vector<std::string> texts;
    for (const auto& problem : config::problems_at(source, why_unplaced(*run))) texts.push_back(problem.text());
    return texts;
  };
  EXPECT_THAT(told("stage = [{layers = \"0:4\"}, {layers = \"4:8\"}]\n"),
              testing::ElementsAre(testing::MatchesRegex(
                  "run.toml:5:38: stage 1 .layers 4:8. needs [0-9.]+ GB, which 1 of 2 machines has, expected 2 of "
                  "them, one for each stage that needs as much or more, or less kept.*")));
  EXPECT_THAT(told("layout = \"auto\"\nstages = 2\n"),
              testing::ElementsAre(testing::MatchesRegex("run.toml:6:10: split into 2, stage . .layers .*. needs .* "
                                                         "GB, which 1 of 2 machines has, expected 2 of them.*")));
}

// 0 layers that are factored leave one stage, and skipping takes three.
TEST(PlanFleet, TriesNoNumberOfStagesThatTheRunForbids) {
  const std::string alike = "\n[[fleet.machine]]\nname = \"a\"\ncount = 3\nmemory_gb = 8\ngflops = 100\n";
  const auto one = plan_fleet(run_on("[boundary]\nfactored_layers = 0\n" + alike, "layout = \"auto\"\n"));
  ASSERT_TRUE(one.has_value()) << one.error().message;
  EXPECT_EQ(one->run.pipeline.stage.size(), 1u);
  const auto three = plan_fleet(run_on("[link]\nlatency_ms = 500\n" + alike, "layout = \"auto\"\nskip_share = 0.1\n"));
  ASSERT_TRUE(three.has_value()) << three.error().message;
  EXPECT_EQ(three->run.pipeline.stage.size(), 3u);
}

TEST(PlanFleet, HonoursFactoredLayersThatAreGiven) {
  // Alike, they would share the layers evenly.
  const std::string alike = "\n[[fleet.machine]]\nname = \"a\"\ncount = 2\nmemory_gb = 8\ngflops = 100\n";
  const auto run = run_on("[boundary]\nfactored_layers = 2\n" + alike, "layout = \"auto\"\nstages = 2\n");
  const auto plan = plan_fleet(run);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->run.pipeline.stage[1].first_layer, 2u);
  EXPECT_EQ(plan->run.boundary.factored_layers, 2u);
}

TEST(FleetAdvice, IsWhatThePredictorSaysOfTheChange) {
  const auto plan = plan_fleet(example());
  const auto advice = fleet_advice(*plan).best;
  ASSERT_FALSE(advice.empty());
  EXPECT_LE(advice.size(), 3u);
  EXPECT_TRUE(std::ranges::is_sorted(advice, std::greater(), &Advice::tokens_per_second));
  for (const auto& change : advice) EXPECT_GT(change.tokens_per_second, plan->tokens_per_second());
  // A run of links alone is helped by smaller payloads.
  const auto thin = plan_fleet(run_on(std::string("[link]\nbandwidth_mbps = 1\nlatency_ms = 1\n") + kTwoUneven,
                                      "layout = \"auto\"\nstages = 2\n"));
  EXPECT_THAT(fleet_advice(*thin).best.front().change, testing::HasSubstr("half the rank"));
}

// Replicas that step on their own cost a step nothing, and so does the first sibling of one that is alone.
TEST(FleetAdvice, ChargesANewReplicaWhatItsRunWould) {
  for (const std::string mode : {"", "[sync]\nmode = \"sparseloco\"\n"}) {
    const auto plan = plan_fleet(run_on(mode + alike(2), "stage = [{layers = \"0:4\"}, {layers = \"4:8\"}]\n"));
    ASSERT_TRUE(plan.has_value());
    ASSERT_EQ(plan->run.pipeline.stage[0].replicas, 1u);
    const auto advice = fleet_advice(*plan);
    EXPECT_TRUE(std::ranges::any_of(advice.best, [](const Advice& one) {
      return one.change.starts_with("a replica of stage");
    })) << mode;
    EXPECT_EQ(advice.untried, 0u);
  }
}

TEST(FleetAdvice, TriesAsMuchAsItMay) {
  const auto plan = plan_fleet(example());
  const auto all = fleet_advice(*plan), one = fleet_advice(*plan, 1);
  EXPECT_EQ(all.untried, 0u);
  EXPECT_EQ(one.tried, 1u);
  EXPECT_EQ(one.tried + one.untried, all.tried);
  EXPECT_LE(one.best.size(), 1u);
}

TEST(FleetText, ShowsMachinesWaitsLinksAndChanges) {
  const auto plan = plan_fleet(example());
  const std::string text = fleet_text(*plan);
  for (const char* part : {"stage × time", "idle for want of", "machine", "workstation.0",
                           "bytes a step over each link", "replicas   ", "predicted", "would help"})
    EXPECT_THAT(text, testing::HasSubstr(part));
  const auto json = nlohmann::json::parse(fleet_json(*plan));
  EXPECT_EQ(json["machines"].size(), plan->fleet.machines.size());
  EXPECT_EQ(json["paths"].size(), 256u);
  EXPECT_GT(json["changes"].size(), 0u);
  for (const auto& stage : json["stages"])
    EXPECT_NEAR(stage["busy_share"].get<double>() + stage["idle_share"].get<double>(), 1, 1e-6);
}

}  // namespace
}  // namespace isthmus::planner
