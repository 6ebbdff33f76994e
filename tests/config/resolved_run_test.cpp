#include <gmock/gmock.h>

#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "config/load_run.h"
#include "config/run_text.h"

namespace isthmus::config {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

void expect_round_trip(const spec::RunConfig& run) {
  const std::string text = resolved_toml(run);
  const auto again = parse_run(text, "resolved.toml");
  ASSERT_TRUE(again.has_value()) << again.error().front().text() << "\n" << text;
  EXPECT_THAT(differences(run, *again), IsEmpty());
  EXPECT_EQ(run, *again) << text;
  EXPECT_EQ(resolved_toml(*again), text);
}

TEST(ResolvedToml, ReadsBackToTheSameRun) {
  expect_round_trip(*parse_run(kShortest, "run.toml"));
  expect_round_trip(*parse_run(kFull, "run.toml"));
  expect_round_trip(*parse_run(kShortest, "run.toml", {"boundary.codec=identity"}));
  expect_round_trip(*parse_run(kShortest, "run.toml", {"run.steps=3"}));
  expect_round_trip(*parse_run(kShortest, "run.toml", {"pipeline.layout=auto", "pipeline.stages=5"}));
}

TEST(ResolvedToml, ReadsAFleetBackToTheSameFleet) {
  expect_round_trip(*parse_run(kFleet, "run.toml"));
  expect_round_trip(*parse_run(with(kFleet, "stages = 3\n", ""), "run.toml"));
  expect_round_trip(*parse_run(
      with(kFleet, "layout = \"auto\"\nstages = 3", "stage = [{layers = \"0:3\"}, {layers = \"3:8\"}]"), "run.toml"));
  // How its replicas agree is known once they are placed, unless the file says so.
  EXPECT_EQ(parse_run(with(kFleet, "layout = \"auto\"\nstages = 3", "stage = [{layers = \"0:3\"}, {layers = \"3:8\"}]"),
                      "run.toml")
                ->sync.mode,
            "");
  expect_round_trip(*parse_run(std::string(kFleet) + "\n[sync]\nmode = \"sparseloco\"\n", "run.toml"));
}

TEST(ResolvedToml, QuotesWhatAPathMayHold) {
  auto run = *parse_run(kShortest, "run.toml");
  run.host.data.train = "a \"b\" \\ ' # [c] = ü";
  expect_round_trip(run);
}

TEST(ResolvedToml, KeepsEveryBitOfANumber) {
  auto run = *parse_run(kShortest, "run.toml");
  std::mt19937_64 random(1);
  for (int i = 0; i < 300; ++i) {
    // Any double in (0, 1): all exponents, all mantissas.
    const double value = std::bit_cast<double>(random() % std::bit_cast<std::uint64_t>(1.0));
    if (value == 0) continue;
    run.train.learning_rate = value;
    run.train.epsilon = std::nextafter(value, 1.0);
    run.link.loss = value / 3;
    expect_round_trip(run);
  }
  run.run.seed = 9223372036854775807u;
  run.link.bandwidth_mbps = 1e6;
  expect_round_trip(run);
}

TEST(ResolvedJson, HasEveryValueOfTheRun) {
  const auto json = nlohmann::json::parse(resolved_json(*parse_run(kFull, "run.toml")));
  EXPECT_EQ(json["run"]["deterministic"], true);
  EXPECT_EQ(json["train"]["learning_rate"], 3.7e-4);
  EXPECT_EQ(json["pipeline"]["credits"], 9);
  EXPECT_EQ(json["pipeline"]["stage"][1]["layers"], "3:8");
  EXPECT_EQ(json["boundary"]["factored_layers"], 6);
  EXPECT_EQ(json["emulated"]["forward_bytes"], 1000);
}

TEST(ResolvedJson, HasTheFleetOfARunThatHasOne) {
  const auto json = nlohmann::json::parse(resolved_json(*parse_run(kFleet, "run.toml")));
  EXPECT_EQ(json["fleet"]["machine"][0]["downlink_mbps"], 200.5);
  EXPECT_EQ(json["fleet"]["machine"][1]["uplink_mbps"], 80);  // as [link]
  EXPECT_FALSE(json["fleet"]["machine"][1].contains("gflops"));
  EXPECT_FALSE(nlohmann::json::parse(resolved_json(*parse_run(kFull, "run.toml"))).contains("fleet"));
}

TEST(Differences, NameMachinesToo) {
  const auto plain = *parse_run(kShortest, "run.toml");
  auto fleet = plain;
  fleet.fleet.machine.push_back({.name = "a"});
  EXPECT_THAT(differences(plain, fleet),
              ElementsAre("fleet.machine: [] / [{\"name\":\"a\",\"count\":1,\"region\":\"\"}]"));
}

TEST(Differences, NameTheKeyAndBothValues) {
  const auto a = *parse_run(kFull, "run.toml");
  auto b = a;
  EXPECT_THAT(differences(a, b), IsEmpty());
  b.train.learning_rate = 0.002;
  b.run.name = "other";
  b.pipeline.stage[0].end_layer = 2;
  b.boundary.factored_layers.reset();
  EXPECT_THAT(differences(a, b),
              ElementsAre("run.name: \"full\" / \"other\"", "train.learning_rate: 0.00037 / 0.002",
                          "boundary.factored_layers: 6 / null",
                          "pipeline.stage: [{\"layers\":\"0:3\",\"replicas\":1},{\"layers\":\"3:8\","
                          "\"replicas\":1}] / [{\"layers\":\"0:2\",\"replicas\":1},{\"layers\":\"3:8\","
                          "\"replicas\":1}]"));
}

}  // namespace
}  // namespace isthmus::config
