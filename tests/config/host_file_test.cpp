// What belongs to one machine, apart from what all must agree on.

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "config/load_run.h"
#include "config/run_text.h"
#include "config/schema_check.h"

namespace isthmus::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

spec::RunConfig run_with_host(const std::string& text, const std::string& host, std::vector<std::string> set = {}) {
  const auto run =
      parse_run({.text = text, .file = "runs/run.toml", .overrides = set, .host = FileText{host, "home/host.toml"}});
  EXPECT_TRUE(run.has_value()) << run.error().front().text();
  return run.value_or(spec::RunConfig());
}
std::vector<std::string> problems_with_host(const std::string& text, const std::string& host) {
  const auto run = parse_run({.text = text, .file = "run.toml", .host = FileText{host, "host.toml"}});
  std::vector<std::string> out;
  if (!run)
    for (const auto& problem : run.error()) out.push_back(problem.text());
  return out;
}

TEST(HostFile, StandsForTheRunFilesKeysButNotForOverrides) {
  const auto run = run_with_host(std::string(kShortest) + "[recovery]\njournal_mb = 5\nskip_after_s = 3\n",
                                 "[pipeline]\nthreads = 3\nactivation_mb = 9\n[recovery]\njournal_mb = 6\n",
                                 {"pipeline.activation_mb=11"});
  EXPECT_EQ(run.host.threads, 3u);
  EXPECT_EQ(run.host.journal_mb, 6u);
  EXPECT_EQ(run.host.activation_mb, 11u);
  EXPECT_EQ(run.recovery.skip_after_s, 3u);
}

TEST(HostFile, NamesItsDeviceBeforeThereIsARun) {
  EXPECT_EQ(host_device("[pipeline]\nthreads = 3\ndevice = \"cuda\"\n"), "cuda");
  for (const char* none : {"", "[pipeline]\nthreads = 3\n", "[pipeline]\ndevice = 3\n", "pipeline = 3", "[pipeline\n"})
    EXPECT_EQ(host_device(none), "") << none;
}

TEST(HostFile, LeavesTheRunWhatItIs) {
  const auto plain = *parse_run(kShortest, "run.toml");
  const auto elsewhere = run_with_host(kShortest,
                                       "[data]\ntrain = \"/d/t\"\nvalidation = \"v\"\n[pipeline]\ndevice = \"cuda\"\n"
                                       "threads = 5\nactivation_mb = 1\nrecompute = \"never\"\n"
                                       "[recovery]\njournal_mb = 0\nreplace = false\n[link]\nuplink_mbps = 5\n");
  EXPECT_NE(plain.host, elsewhere.host);
  EXPECT_EQ(spec_digest(plain), spec_digest(elsewhere));
  auto other = plain;
  other.train.schedule_steps += 1;
  EXPECT_NE(spec_digest(plain), spec_digest(other));
  other = plain;
  other.data.train = {std::string(64, 'a'), 9};
  EXPECT_NE(spec_digest(plain), spec_digest(other));
}

// What is sent names no path, device or limit of the machine it was written on; both halves make the whole again, but
// for the shards, which a worker does not need.
TEST(HostFile, AndTheSpecAreTheTwoHalvesOfARun) {
  auto run =
      run_with_host(kShortest,
                    "[data]\ntrain = \"/d/t\"\nvalidation = \"/d/v\"\n[pipeline]\nthreads = 5\nactivation_mb = 7\n"
                    "[recovery]\njournal_mb = 3\n[link]\nuplink_mbps = 20\n");
  run.data.train = {std::string(64, 'a'), 9};
  run.data.validation = {std::string(64, 'b'), 8};
  const std::string sent = spec_toml(run);
  for (const char* own : {"/d/t", "/d/v", "device", "threads", "activation_mb", "journal_mb", "replace", "uplink"})
    EXPECT_EQ(sent.find(own), std::string::npos) << own;
  const auto received = parse_run(sent, "the run's spec");
  ASSERT_TRUE(received) << received.error().front().text();
  EXPECT_EQ(spec_digest(*received), spec_digest(run));
  EXPECT_EQ(received->host, spec::HostConfig());
  EXPECT_EQ(host_toml(run).find("data"), std::string::npos);
  run.host.data = {};
  EXPECT_EQ(run_with_host(sent, host_toml(run)), run);
}

TEST(HostFile, HasOnlyAMachinesOwnKeys) {
  EXPECT_THAT(problems_with_host(kShortest, "[pipeline]\nthreads = -1\nschedule = \"deep\"\n[model]\nhidden = 4\n"),
              ElementsAre(HasSubstr("host.toml:2:11: pipeline.threads is -1"),
                          HasSubstr("host.toml:3:1: unknown key \"schedule\""),
                          HasSubstr("host.toml:4:2: unknown key \"model\"")));
  EXPECT_THAT(problems_with_host(kShortest, "[pipeline"), ElementsAre(HasSubstr("host.toml:1:")));
}

TEST(HostFile, CannotMakeAnEmulatedRunARealOneOrTheOtherWayRound) {
  EXPECT_THAT(problems_with_host(kShortest, "[pipeline]\ndevice = \"emulated\"\n"),
              ElementsAre(HasSubstr("pipeline.device is \"emulated\", expected one of \"cpu\", \"cuda\"")));
  EXPECT_THAT(problems_with_host(kFull, "[pipeline]\ndevice = \"cpu\"\n"),
              ElementsAre(HasSubstr("host.toml:2:10: pipeline.device in a run whose devices are all emulated")));
}

TEST(HostFile, SchemaIsAPartOfTheRunFiles) {
  for (const auto& [section, table] : host_schema().at("properties").items())
    for (auto [key, schema] : table.at("properties").items()) {
      auto whole = run_schema().at("properties").at(section).at("properties").at(key);
      if (key == "device") whole["enum"] = {"cpu", "cuda"};
      EXPECT_EQ(schema, whole) << section << "." << key;
    }
}

TEST(DataPaths, StartAtTheFileTheyAreWrittenIn) {
  EXPECT_EQ(parse_run(kShortest, "some/run.toml")->host.data.train, "some/train.bin");
  EXPECT_EQ(parse_run(with(kShortest, "train.bin", "../d/train.bin"), "some/run.toml")->host.data.train, "d/train.bin");
  EXPECT_EQ(parse_run(with(kShortest, "train.bin", "/d/train.bin"), "some/run.toml")->host.data.train, "/d/train.bin");
  // A flag is written in the working directory.
  const auto set = parse_run(kShortest, "some/run.toml", {"data.train=x/t.bin"});
  EXPECT_EQ(set->host.data.train, "x/t.bin");
  EXPECT_EQ(set->host.data.validation, "some/validation.bin");
  EXPECT_EQ(run_with_host(kShortest, "[data]\ntrain = \"t.bin\"\n").host.data.train, "home/t.bin");
}

TEST(DataPaths, LeadToTheSameShardsFromTheFolderOfARun) {
  namespace fs = std::filesystem;
  const std::string folder = ::testing::TempDir() + "/isthmus-seen-from-" + std::to_string(::getpid());
  fs::create_directories(folder + "/runs/out");
  fs::create_directories(folder + "/data");
  std::ofstream(folder + "/runs/run.toml") << with(kShortest, "train.bin", "../data/train.bin");
  const auto run = load_run(folder + "/runs/run.toml");
  ASSERT_TRUE(run.has_value());
  const std::string text = resolved_toml(*run, folder + "/runs/out");
  EXPECT_THAT(text, HasSubstr("train = \"../../data/train.bin\""));
  EXPECT_EQ(parse_run(text, folder + "/runs/out/run.toml")->host, run->host);
  fs::remove_all(folder);
}

TEST(DataNames, AreDigestAndSizeTogether) {
  const std::string digest(64, 'e');
  const auto named = [&](const std::string& more) {
    return problems_of(with(kShortest, "[data]\n", "[data]\n" + more));
  };
  EXPECT_THAT(named("train_digest = \"" + digest + "\"\ntrain_bytes = 3\n"), testing::IsEmpty());
  EXPECT_THAT(named("train_digest = \"" + digest + "\"\n"),
              ElementsAre(HasSubstr("data.train_digest without data.train_bytes, expected both, or neither")));
  EXPECT_THAT(named("train_digest = \"" + digest + "0\"\ntrain_bytes = 3\n"),
              ElementsAre(HasSubstr("expected 64 hexadecimal digits")));
  // Who does not read the shard needs no file.
  EXPECT_THAT(problems_of("[data]\ntrain_digest = \"" + digest + "\"\ntrain_bytes = 3\nvalidation_digest = \"" +
                          digest + "\"\nvalidation_bytes = 4\n[[pipeline.stage]]\nlayers = \"0:8\"\n"),
              testing::IsEmpty());
}

// What the file of a continuation leaves open.
TEST(Earlier, KeepsTheLengthOfTheScheduleAndHowReplicasAgree) {
  const std::string replicated = with(kShortest, "layers = \"0:8\"\n", "layers = \"0:8\"\nreplicas = 2\n");
  const auto begun = parse_run(replicated, "run.toml", {"run.steps=12", "link.bandwidth_mbps=1000"});
  ASSERT_TRUE(begun.has_value());
  EXPECT_EQ(begun->train.schedule_steps, 12u);
  EXPECT_EQ(begun->train.warmup_steps, 12u);
  const auto go_on = [&](std::vector<std::string> set) {
    const auto run = parse_run({.text = replicated,
                                .file = "run.toml",
                                .overrides = std::move(set),
                                .earlier = FileText{resolved_toml(*begun), "out/run.toml"}});
    EXPECT_TRUE(run.has_value()) << run.error().front().text();
    return run.value_or(spec::RunConfig());
  };
  EXPECT_THAT(differences(*begun, go_on({"run.steps=16", "link.bandwidth_mbps=1000"})),
              ElementsAre("run.steps: 12 / 16"));
  EXPECT_THAT(differences(*begun, go_on({"run.steps=16", "train.schedule_steps=16", "link.bandwidth_mbps=1000"})),
              ElementsAre("run.steps: 12 / 16", "train.schedule_steps: 12 / 16"));
  // On its own the link would have another mode.
  EXPECT_NE(parse_run(replicated, "run.toml")->sync.mode, begun->sync.mode);
  EXPECT_THAT(differences(*begun, go_on({"run.steps=12"})), ElementsAre("link.bandwidth_mbps: 1000.0 / 80.0"));
}

TEST(Earlier, ScheduleIsAtLeastAsLongAsTheWarmUp) {
  EXPECT_THAT(problems_of(with(kFull, "schedule_steps = 39", "schedule_steps = 3")),
              ElementsAre(HasSubstr("train.warmup_steps is 4, expected at most train.schedule_steps = 3")));
}

}  // namespace
}  // namespace isthmus::config
