#include <gmock/gmock.h>

#include "config/fleet_links.h"
#include "config/load_run.h"
#include "config/run_text.h"

namespace isthmus::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> changed(const std::string& from, const std::string& to) {
  return problems_of(with(kFleet, from, to));
}

TEST(Fleet, IsReadAndFilledIn) {
  const auto run = parse_run(kFleet, "run.toml");
  ASSERT_TRUE(run.has_value()) << run.error().front().text();
  EXPECT_THAT(run->fleet.machine,
              ElementsAre(spec::RunConfig::Machine{"gpu", 3, 8, 500, 0, 0, 0, 0, 0, 40, 200.5, "eu"},
                          spec::RunConfig::Machine{"old", 1, 4, 0, 20, 22, 21, 2, 30, 80, 80, "old"},
                          spec::RunConfig::Machine{"far", 2, 16, 900, 0, 0, 0, 0, 0, 80, 80, "us"}));
  EXPECT_EQ(run->fleet.link.size(), 6u);
  EXPECT_EQ(run->fleet.link[5], (spec::RunConfig::FleetLink{{"gpu.1", "far"}, 90, 40.5}));
  // The planner's to decide.
  EXPECT_EQ(run->pipeline.layout, "auto");
  EXPECT_TRUE(run->pipeline.stage.empty());
  EXPECT_FALSE(run->boundary.factored_layers.has_value());
  EXPECT_THAT(changed("stages = 3\n", ""), IsEmpty());
}

TEST(FleetLinks, TakeTheNarrowestNames) {
  const auto fleet = parse_run(kFleet, "run.toml")->fleet;
  const FleetLinks links(fleet);
  const auto latency = [&](std::size_t table_a, std::uint32_t a, std::size_t table_b, std::uint32_t b) {
    return fleet.link[*links.between(links.site_of(table_a, a), links.site_of(table_b, b)).link].latency_ms;
  };
  EXPECT_EQ(latency(0, 0, 0, 2), 10);    // within eu
  EXPECT_EQ(latency(0, 0, 2, 1), 45);    // eu to us
  EXPECT_EQ(latency(2, 1, 0, 0), 45);    // and back
  EXPECT_EQ(latency(0, 1, 2, 0), 40.5);  // but gpu.1 has a line of its own
  EXPECT_EQ(latency(0, 1, 0, 0), 10);
  EXPECT_EQ(links.sites().size(), 4u);  // gpu, gpu.1, old, far
}

TEST(FleetProblem, RatesAreAboveZero) {
  EXPECT_THAT(changed("uplink_mbps = 40", "uplink_mbps = -40"),
              ElementsAre("run.toml:12:15: fleet.machine[0].uplink_mbps is -40, expected a number, 0.001 to 1000000"));
  EXPECT_THAT(changed("mbps = 60", "mbps = 0"),
              ElementsAre("run.toml:39:8: fleet.link[2].mbps is 0, expected a number, 0.001 to 1000000"));
  EXPECT_THAT(
      changed("gflops = 500", "gflops = 0"),
      ElementsAre(HasSubstr("run.toml:11:10: fleet.machine[0].gflops is 0, expected a number, 0.001 to 1000000000")));
  EXPECT_THAT(changed("latency_ms = 45", "latency_ms = -1"),
              ElementsAre(HasSubstr("run.toml:40:14: fleet.link[2].latency_ms is -1")));
}

// Of a rate next to nothing a step has no number of nanoseconds any more.
TEST(FleetProblem, NothingTakesAnAge) {
  EXPECT_THAT(changed("uplink_mbps = 40", "uplink_mbps = 1e-12"),
              ElementsAre(HasSubstr("uplink_mbps is 1e-12, expected a number, 0.001 to 1000000")));
  EXPECT_THAT(changed("gflops = 500", "gflops = 1e-9"),
              ElementsAre(HasSubstr("gflops is 1e-09, expected a number, 0.001 to 1000000000")));
  EXPECT_THAT(changed("forward_ms = 20\n", "forward_ms = 1e-300\n"),
              ElementsAre(HasSubstr("forward_ms is 1e-300, expected a number, 1e-06 to 3600000")));
  EXPECT_THAT(problems_of(kFleet, {"link.bandwidth_mbps=1e-9"}),
              ElementsAre(HasSubstr("link.bandwidth_mbps is 1e-09, expected a number, 0.001 to 1000000")));
  EXPECT_THAT(problems_of(kFleet, {"link.loss=0.999999"}),
              ElementsAre(HasSubstr("link.loss is 0.999999, expected a number, 0 to 0.9")));
  const std::vector<std::string> long_step = {"train.microbatches_per_step=65536", "model.layers=512"};
  EXPECT_THAT(problems_of(with(kFleet, "forward_ms = 20\n", "forward_ms = 3600000\n"), long_step),
              ElementsAre(testing::MatchesRegex("run.toml:15:1: fleet.machine.1. would take .* s over a step of 65536 "
                                                "microbatches through 512 layers, expected at most 1e.09 s")));
  EXPECT_THAT(
      problems_of(with(kFleet, "mbps = 60", "mbps = 0.001"), {"train.microbatches_per_step=65536"}),
      ElementsAre(testing::MatchesRegex(
          "run.toml:39:8: fleet.link.2..mbps is 0.001: what a step may send takes .* s, expected at most 1e.09 s")));
}

TEST(FleetProblem, AMachineHasOneSpeed) {
  EXPECT_THAT(
      changed("gflops = 500\n", ""),
      ElementsAre("run.toml:7:1: fleet.machine[0] has no speed, expected gflops, or forward_ms, input_gradient_ms and "
                  "weight_gradient_ms"));
  EXPECT_THAT(changed("forward_ms = 20\n", ""),
              ElementsAre(HasSubstr("run.toml:15:1: fleet.machine[1] has 2 of its three times per layer")));
  EXPECT_THAT(changed("forward_ms = 20\n", "forward_ms = 20\ngflops = 1\n"),
              ElementsAre(HasSubstr("fleet.machine[1] has both gflops and times per layer"),
                          HasSubstr("fleet.machine[1].embedding_ms with gflops, expected the times of a layer"),
                          HasSubstr("fleet.machine[1].head_ms with gflops")));
}

TEST(FleetProblem, NamesAreForOne) {
  EXPECT_THAT(
      changed("name = \"old\"", "name = \"gpu\""),
      testing::Contains(
          "run.toml:16:8: a second machine is called \"gpu\", expected another name than that of fleet.machine[0]"));
  EXPECT_THAT(changed("name = \"old\"", "name = \"gpu.2\""),
              testing::Contains(HasSubstr("a second machine is called \"gpu.2\"")));
  EXPECT_THAT(changed("region = \"us\"", "region = \"old\""),
              testing::Contains("run.toml:28:10: the region \"old\" is called like a machine, expected another name "
                                "than that of fleet.machine[1]"));
}

TEST(FleetProblem, LinksAreBetweenKnownNames) {
  EXPECT_THAT(changed("[\"eu\", \"us\"]", "[\"eu\", \"uk\"]"),
              ElementsAre("run.toml:38:18: there is no machine or region \"uk\", expected a name of [[fleet.machine]] "
                          "or one of their regions"));
  EXPECT_THAT(changed("\"gpu.1\"", "\"gpu.3\""), ElementsAre(HasSubstr("there is no machine or region \"gpu.3\"")));
  EXPECT_THAT(changed("[\"eu\", \"us\"]", "[\"eu\"]"),
              ElementsAre("run.toml:38:11: fleet.link[2].between has 1 entries, expected 2 texts"));
}

TEST(FleetProblem, EveryPairHasALink) {
  EXPECT_THAT(changed("[\"eu\", \"us\"]", "[\"gpu.1\", \"us\"]"),
              ElementsAre("run.toml:29:1: no link for eu to us, expected a [[fleet.link]] for every pair once there is "
                          "one, or none at all"));
  EXPECT_THAT(changed("[\"us\", \"us\"]", "[\"old\", \"far\"]"),
              ElementsAre(HasSubstr("no link for two machines of us")));
  std::string many = kShortest;
  many = with(many, "[[pipeline.stage]]\nlayers = \"0:8\"\n", "[pipeline]\nlayout = \"auto\"\n");
  for (int i = 0; i < 5; ++i)
    many += "[[fleet.machine]]\nname = \"m" + std::to_string(i) + "\"\nmemory_gb = 9\ngflops = 9\n";
  EXPECT_THAT(problems_of(many), IsEmpty());
  EXPECT_THAT(
      problems_of(many + "[[fleet.link]]\nbetween = [\"m0\", \"m1\"]\nmbps = 1\nlatency_ms = 1\n"),
      ElementsAre(HasSubstr("no link for m0 to m2, m0 to m3, m0 to m4, m1 to m2, m1 to m3 and 4 more, expected")));
}

TEST(FleetProblem, NoTwoLinksHoldForAPair) {
  EXPECT_THAT(
      changed("[\"old\", \"us\"]", "[\"us\", \"eu\"]"),
      testing::Contains(
          "run.toml:46:11: \"us\" to \"eu\" has a link already, expected one [[fleet.link]]; the other is in line 37"));
  EXPECT_THAT(
      problems_of(std::string(kFleet) + "[[fleet.link]]\nbetween = [\"gpu\", \"us\"]\nmbps = 9\nlatency_ms = 9\n"
                                        "[[fleet.link]]\nbetween = [\"eu\", \"far\"]\nmbps = 8\nlatency_ms = 9\n"),
      ElementsAre("run.toml:57:1: \"eu\" to \"far\" and \"gpu\" to \"us\" hold for the same machines, expected one of "
                  "them to be narrower; the other is in line 53"));
}

TEST(FleetProblem, EveryStageHasAMachine) {
  EXPECT_THAT(changed("stages = 3", "stages = 7"),
              ElementsAre("run.toml:6:10: there are 7 stages for 6 machines, expected at least one machine per stage"));
  EXPECT_THAT(changed("stages = 3", "stages = 9"),
              testing::Contains(HasSubstr("pipeline.stages is 9, expected 1 to model.layers = 8")));
  EXPECT_THAT(changed("count = 3", "count = 10000"),
              ElementsAre(HasSubstr("the fleet has 10003 machines, expected at most 10000")));
}

TEST(FleetProblem, EveryLayerFitsSomewhere) {
  std::string small = kFleet;
  for (const char* memory : {"memory_gb = 8", "memory_gb = 4", "memory_gb = 16"})
    small = with(small, memory, "memory_gb = 0.02");
  EXPECT_THAT(
      problems_of(small),
      ElementsAre("run.toml:7:1: layer 0 with the embedding needs 0.2 GB, expected a machine that has as much; the "
                  "largest has 0.02 GB",
                  "run.toml:7:1: layer 1 needs 0.205 GB, expected a machine that has as much; the largest has 0.02 GB",
                  "run.toml:7:1: layer 7 with the head needs 0.213 GB, expected a machine that has as much; the "
                  "largest has 0.02 GB"));
  const std::string map =
      with(small, "layout = \"auto\"\nstages = 3", "stage = [{layers = \"0:3\"}, {layers = \"3:8\"}]");
  EXPECT_THAT(problems_of(map),
              ElementsAre(HasSubstr("run.toml:5:20: stage 0 needs"), HasSubstr("run.toml:5:38: stage 1 needs")));
}

// Whatever the planner makes of it is a run: the rules of an explicit map hold as far as they can be known.
TEST(FleetProblem, AMapThatIsPlannedKeepsTheRulesOfOneThatIsWritten) {
  EXPECT_THAT(
      changed("stages = 3", "stages = 2\nskip_share = 0.33"),
      ElementsAre(HasSubstr("run.toml:7:14: pipeline.skip_share is 0.33, expected at most 0.000 with these stages")));
  EXPECT_THAT(changed("stages = 3", "stages = 3\nskip_share = 0.33"),
              ElementsAre(HasSubstr("pipeline.skip_share is 0.33, expected at most 0.167")));
  EXPECT_THAT(changed("stages = 3", "skip_share = 0.2"), IsEmpty());
  EXPECT_THAT(problems_of(with(kFleet, "stages = 3", "skip_share = 0.2"), {"boundary.factored_layers=1"}),
              ElementsAre(HasSubstr("pipeline.skip_share is 0.2, expected at most 0.000")));
  EXPECT_THAT(problems_of(kFleet, {"boundary.factored_layers=0"}),
              ElementsAre("--set: boundary.factored_layers is 0, expected 2 to 8: every layer before the last boundary "
                          "writes through the subspace"));
  EXPECT_THAT(problems_of(kFleet, {"boundary.factored_layers=2"}), IsEmpty());
  EXPECT_THAT(problems_of(kFleet, {"boundary.factored_layers=9"}),
              ElementsAre(HasSubstr("boundary.factored_layers is 9, expected 2 to 8")));
  EXPECT_THAT(problems_of(with(kFleet, "stages = 3\n", ""), {"boundary.factored_layers=0"}), IsEmpty());
}

TEST(FleetProblem, OneHidesNoOther) {
  // A count that is none.
  auto text = with(kFleet, "[\"eu\", \"us\"]", "[\"uk\", \"up\"]");
  const auto unknown = [](const char* name) {
    return HasSubstr(std::string("there is no machine or region \"") + name + '"');
  };
  EXPECT_THAT(problems_of(with(text, "count = 3", "count = 0")),
              ElementsAre(HasSubstr("fleet.machine[0].count is 0"), HasSubstr("run.toml:29:1: no link for eu to us"),
                          unknown("uk"), unknown("up")));
  EXPECT_THAT(changed("count = 3", "count = 0"), ElementsAre(HasSubstr("fleet.machine[0].count is 0")));
  // Too many machines, of which most are not looked at one by one.
  EXPECT_THAT(problems_of(with(text, "count = 3", "count = 10000")),
              ElementsAre(HasSubstr("the fleet has 10003 machines"), HasSubstr("no link for eu to us"), unknown("uk"),
                          unknown("up")));
  // No speed, no memory, a name that is not allowed.
  EXPECT_THAT(problems_of(with(text, "gflops = 500\n", "")),
              ElementsAre(HasSubstr("fleet.machine[0] has no speed"), HasSubstr("no link for eu to us"), unknown("uk"),
                          unknown("up")));
  EXPECT_THAT(changed("name = \"far\"", "name = \"-far\""),
              ElementsAre(HasSubstr("fleet.machine[2].name is \"-far\""), unknown("far")));
  EXPECT_THAT(problems_of(with(with(kFleet, "name = \"far\"", "name = \"f a\""), "\"far\"", "\"f a\"")),
              ElementsAre(HasSubstr("fleet.machine[2].name is \"f a\"")));
  text = kFleet;
  for (const char* memory : {"memory_gb = 8", "memory_gb = 16"}) text = with(text, memory, "memory_gb = 0.02");
  EXPECT_THAT(problems_of(with(text, "memory_gb = 4", "memory_gb = \"4\"")),
              testing::IsSupersetOf({HasSubstr("fleet.machine[1].memory_gb is \"4\""),
                                     HasSubstr("layer 1 needs 0.205 GB, expected a machine that has as much; the "
                                               "largest of the others has 0.02 GB")}));
  // A misspelt link explains what is missing around its other end, and nothing else.
  text = with(kFleet, "[\"old\", \"us\"]", "[\"old\", \"uk\"]");
  EXPECT_THAT(problems_of(text), ElementsAre(unknown("uk")));
  EXPECT_THAT(problems_of(with(text, "[\"us\", \"us\"]", "[\"eu\", \"gpu.1\"]")),
              ElementsAre(HasSubstr("run.toml:29:1: no link for two machines of us, expected"), unknown("uk")));
}

TEST(FleetProblem, LinksTellSoManyPlacesApartAtMost) {
  std::string text = with(kShortest, "[[pipeline.stage]]\nlayers = \"0:8\"\n", "[pipeline]\nlayout = \"auto\"\n");
  text += "[[fleet.machine]]\nname = \"m\"\ncount = 10000\nmemory_gb = 9\ngflops = 9\n";
  std::string links;
  for (int i = 0; i < 4096; ++i)
    links += "[[fleet.link]]\nbetween = [\"m." + std::to_string(2 * i) + "\", \"m." + std::to_string(2 * i + 1) +
             "\"]\nmbps = 1\nlatency_ms = 1\n";
  EXPECT_THAT(problems_of(text + links),
              ElementsAre(HasSubstr("links and tables tell 8193 places apart, expected at most 2048")));
}

TEST(FleetProblem, ReplicasAreMachines) {
  EXPECT_THAT(changed("stages = 3", "stages = 3\nreplicas = 2"),
              ElementsAre(HasSubstr("run.toml:7:12: pipeline.replicas is 2, expected no such key with a fleet")));
  EXPECT_THAT(changed("layout = \"auto\"\nstages = 3", "stage = [{layers = \"0:8\", replicas = 2}]"),
              ElementsAre("run.toml:5:38: pipeline.stage[0].replicas with a fleet, expected no such key: its machines "
                          "are the replicas"));
}

TEST(FleetProblem, AFleetHasMachinesAndIsNoOverride) {
  EXPECT_THAT(
      problems_of(std::string(kShortest) + "[fleet]\n"),
      ElementsAre("run.toml:6:1: [fleet] without a [[fleet.machine]], expected at least one, or no such table"));
  EXPECT_THAT(problems_of(kFleet, {"fleet.machine=[]"}),
              ElementsAre(HasSubstr("--set: the fleet cannot be set on the command line")));
}

TEST(FleetProblem, AreNamedAllAtOnce) {
  auto text = with(kFleet, "uplink_mbps = 40", "uplink_mbps = 0");
  text = with(text, "[\"eu\", \"us\"]", "[\"eu\", \"uk\"]");
  text = with(text, "stages = 3", "stages = 8");
  EXPECT_THAT(problems_of(text),
              ElementsAre(HasSubstr("run.toml:6:10"), HasSubstr("run.toml:12:15"), HasSubstr("run.toml:38:18")));
  text = with(text, "name = \"far\"", "name = \"old\"");
  EXPECT_THAT(problems_of(text), testing::Contains(HasSubstr("there is no machine or region \"uk\"")));
}

// A run file and, apart from it, what was measured.
constexpr const char* kMeasured = R"(# measured
[[fleet.machine]]
name = "worker-1"
memory_gb = 8
forward_ms = 1
input_gradient_ms = 1
weight_gradient_ms = 1
[[fleet.machine]]
name = "worker-2"
memory_gb = 8
forward_ms = 1
input_gradient_ms = 1
weight_gradient_ms = 1
[[fleet.link]]
between = ["worker-1", "worker-2"]
mbps = 20
latency_ms = 30
)";

std::vector<std::string> problems_with(const std::string& measured, const std::string& run = kShortest,
                                       const std::vector<std::string>& overrides = {}) {
  const FileText fleet{measured, "fleet.toml"};
  const auto merged = parse_run(run, "run.toml", overrides, &fleet);
  std::vector<std::string> out;
  if (!merged)
    for (const auto& problem : merged.error()) out.push_back(problem.text());
  return out;
}

TEST(MeasuredFleet, StandsForTheMachinesAndReplicasOfTheRunFile) {
  const FileText fleet{kMeasured, "fleet.toml"};
  const auto own = parse_run(kFleet, "run.toml", {"pipeline.stages=2"}, &fleet);
  ASSERT_TRUE(own.has_value()) << own.error().front().text();
  EXPECT_EQ(own->fleet.machine.size(), 2u);
  EXPECT_EQ(own->fleet.link.size(), 1u);
  const std::string map = std::string(kShortest) + "replicas = 2\n";
  EXPECT_THAT(problems_with(kMeasured, map), IsEmpty());
  EXPECT_THAT(problems_with(kMeasured, with(kShortest, "[[pipeline.stage]]\nlayers = \"0:8\"",
                                            "[pipeline]\nlayout = \"auto\"\nstages = 2\nreplicas = 3")),
              IsEmpty());
  EXPECT_THAT(problems_with(kMeasured, kShortest, {"pipeline.layout=auto", "pipeline.replicas=2"}),
              ElementsAre(HasSubstr("--set: pipeline.replicas is 2")));
}

TEST(MeasuredFleet, SaysEveryProblemWhereItIs) {
  EXPECT_THAT(problems_with("fleet = ["), ElementsAre(HasSubstr("fleet.toml:1:")));
  EXPECT_THAT(problems_with(""), ElementsAre("fleet.toml: there is no [[fleet.machine]], expected [[fleet.machine]] "
                                             "and [[fleet.link]] tables, as in the fleet.toml of a run"));
  const std::string planned = with(kShortest, "[[pipeline.stage]]\nlayers = \"0:8\"", "[pipeline]\nlayout = \"auto\"");
  for (const char* none : {"fleet = [", "", "[fleet]", "fleet = [1]"})
    EXPECT_THAT(problems_with(none, planned), ElementsAre(HasSubstr("fleet.toml:")));
  EXPECT_THAT(problems_with("fleet = 3"), ElementsAre(HasSubstr("fleet.toml:1:9: fleet is 3")));
  EXPECT_THAT(problems_with(std::string(2 << 20, '#')), ElementsAre(HasSubstr("fleet.toml: there is more than 1 MiB")));
  EXPECT_THAT(problems_with("[model]\nlayers = 3\n" + with(kMeasured, "mbps = 20", "mbps = -1")),
              ElementsAre(HasSubstr("fleet.toml:1:2: unknown table \"model\""),
                          HasSubstr("fleet.toml:18:8: fleet.link[0].mbps is -1")));
  EXPECT_THAT(problems_with(with(kMeasured, "forward_ms = 1\n", "")),
              ElementsAre(HasSubstr("fleet.toml:2:1: fleet.machine[0] has 2 of its three times")));
  EXPECT_THAT(problems_with(with(kMeasured, "\"worker-1\", ", "\"worker-7\", "), with(kShortest, "0:8", "0:9")),
              ElementsAre(HasSubstr("run.toml:5:10: "),
                          HasSubstr("fleet.toml:15:12: there is no machine or region \"worker-7\"")));
}

}  // namespace
}  // namespace isthmus::config
