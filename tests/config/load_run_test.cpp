#include "config/load_run.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "config/run_text.h"

namespace isthmus::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(LoadRun, FillsInDefaults) {
  const auto run = parse_run(kShortest, "run.toml");
  ASSERT_TRUE(run.has_value());
  spec::RunConfig expected;
  expected.host.data = {"train.bin", "validation.bin"};
  expected.train.schedule_steps = 300;
  expected.model.mlp = 704;  // 8/3 of 256 is 682.7; the next multiple of 32
  expected.pipeline.stage = {{0, 8, 1}};
  expected.pipeline.stages = 1;
  expected.boundary.factored_layers = 0;
  expected.boundary.gradient_values = "int4";  // as values
  expected.boundary.rank = 60;                 // 4/17 of 256
  expected.recovery.skip_after_s = 20;
  expected.sync.mode = "exact";
  expected.sync.every = 1;
  expected.sync.learning_rate = 1;
  expected.sync.momentum = 0;
  EXPECT_EQ(*run, expected);
}

TEST(LoadRun, ReadsEveryKey) {
  const auto run = parse_run(kFull, "run.toml");
  ASSERT_TRUE(run.has_value()) << run.error().front().text();
  spec::RunConfig expected;
  expected.run = {"full", 7, 40, true};
  expected.model = {8, 128, 4, 64, 300, 96, "window", 4, 16};
  expected.host.data = {"data/train.bin", "data/validation.bin"};
  expected.data = {{"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", 1000},
                   {"fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210", 2000}};
  expected.train = {2, 6, "muon", 3.7e-4, 1.5, 0.9, 4, 39, 0, 0.91, 0.955, 1e-9, 0.01, 0, 4.5, 64, "fp32", 10, 3};
  expected.boundary = {"subspace", 12, "int4", "fp32", false, 6};
  expected.link = {12.5, 20, 0.1, 0.003, true, 60};
  expected.pipeline = {"explicit", 2, 1, {{0, 3, 1}, {3, 8, 1}}, "1f1b", "round_robin", 0, "9"};
  expected.host.uplink_mbps = 3.5;
  expected.host.downlink_mbps = 7.5;
  expected.host.device = "emulated";
  expected.host.threads = 1;
  expected.host.activation_mb = 100;
  expected.host.recompute = "always";
  expected.host.journal_mb = 17;
  expected.host.replace = false;
  expected.sync = {"exact", 1, 0.05, 1.0, 0.0, 1.0, "weights", "mean", 1};
  expected.rehearsal = {2, "noise"};
  expected.emulated = {true, 1.5, 2, 0.3, 1000, 2000, 2500, 3000};
  expected.checkpoint = {5, 3};
  expected.recovery = {9, 11, false, 3};
  EXPECT_EQ(*run, expected);
}

TEST(LoadRun, NamesEveryProblemAtOnceInTheOrderOfTheFile) {
  EXPECT_THAT(problems_of(R"([run]
steps = 0
name = "a/b"
[boundary]
rnak = 16
rank = 300
values = "int5"
[pipeline]
threads = "two"
[[pipeline.stage]]
layers = "0:8"
[train]
beta1 = nan
)"),
              ElementsAre("run.toml:2:9: run.steps is 0, expected a whole number, 1 to 1000000000",
                          "run.toml:3:8: run.name is \"a/b\", expected letters, digits, '_', '-' and '.', at "
                          "most 100, not beginning with '-' or '.'",
                          "run.toml:5:1: unknown key \"rnak\" in boundary, did you mean \"rank\"?",
                          "run.toml:6:8: boundary.rank is 300, expected at most model.hidden = 256",
                          "run.toml:7:10: boundary.values is \"int5\", expected one of \"fp32\", "
                          "\"bf16\", \"int8\", \"int4\"",
                          "run.toml:9:11: pipeline.threads is \"two\", expected a whole number, 0 to 1024",
                          "run.toml:13:9: train.beta1 is nan, expected a number, at least 0 and below 1",
                          "run.toml: data.train is missing, expected the path of a token shard, as `isthmus "
                          "data pack` writes it",
                          "run.toml: data.validation is missing, expected the path of a token shard, as "
                          "`isthmus data pack` writes it"));
}

TEST(LoadRun, SuggestsTheTableThatHasTheKey) {
  EXPECT_THAT(problems_of(std::string(kShortest) + "[model]\nsteps = 3\nstages = 2\n"),
              ElementsAre("run.toml:7:1: unknown key \"steps\" in model, expected it in [run]",
                          "run.toml:8:1: unknown key \"stages\" in model, expected it in [pipeline]"));
  EXPECT_THAT(problems_of(std::string("hidden = 8\n") + kShortest),
              ElementsAre("run.toml:1:1: unknown key \"hidden\", expected it in [model]"));
  EXPECT_THAT(problems_of(std::string(kShortest) + "[modle]\nlayers = 8\n"),
              ElementsAre("run.toml:6:2: unknown key \"modle\", did you mean \"model\"?"));
}

TEST(LoadRun, ListsTheKnownKeysWhenNoneIsNear) {
  EXPECT_THAT(problems_of(std::string(kShortest) + "[checkpoint]\nzanzibar = 8\n"),
              ElementsAre("run.toml:7:1: unknown key \"zanzibar\" in checkpoint, expected one of "
                          "every, keep"));
}

TEST(LoadRun, RefusesWhatIsNoToml) {
  EXPECT_THAT(problems_of("[run\nseed = 1\n"), ElementsAre(HasSubstr("run.toml:1:5: ")));
  EXPECT_THAT(problems_of("[run]\nseed = 1\nseed = 2\n"),
              ElementsAre(testing::AllOf(HasSubstr("run.toml:3:"), HasSubstr("redefine"))));
  EXPECT_THAT(problems_of("[run]\nseed = 99999999999999999999\n"), ElementsAre(HasSubstr("run.toml:2:")));
  EXPECT_THAT(problems_of(std::string("[run]\nname = \"a\0b\"\n", 19)), ElementsAre(HasSubstr("run.toml:2:")));
}

TEST(LoadRun, RefusesDatesTablesAndFractionsWhereNumbersBelong) {
  const auto model = [](const std::string& line) {
    return problems_of(std::string(kShortest) + "[model]\n" + line + "\n");
  };
  EXPECT_THAT(model("hidden = 1979-05-27"),
              ElementsAre(HasSubstr("run.toml:7:10: model.hidden is a date or time, expected a "
                                    "whole number, 2 to 65536")));
  EXPECT_THAT(model("hidden = 256.0"), ElementsAre(HasSubstr("model.hidden is 256")));
  EXPECT_THAT(model("hidden = [256]"), ElementsAre(HasSubstr("model.hidden is an array")));
  EXPECT_THAT(model("hidden = true"), ElementsAre(HasSubstr("model.hidden is true")));
  EXPECT_THAT(model("hidden = 4294967552"), ElementsAre(HasSubstr("model.hidden is 4294967552")));
  EXPECT_THAT(model("hidden = -256"), ElementsAre(HasSubstr("model.hidden is -256")));
  EXPECT_THAT(problems_of("model = 3\n" + std::string(kShortest)),
              ElementsAre("run.toml:1:9: model is 3, expected a table"));
}

TEST(LoadRun, RefusesNumbersThatAreNotFinite) {
  for (const std::string value : {"inf", "-inf", "nan", "1e999"})
    EXPECT_THAT(problems_of(std::string(kShortest) + "[link]\nlatency_ms = " + value + "\n"), testing::SizeIs(1))
        << value;
}

// 8 bytes a number, half of them sent by each of two replicas: a second of 80 Mb/s is 2.5 million numbers.
TEST(LoadRun, LetsReplicasStepOnTheirOwnWhereTheirSumWouldHoldUpTheLink) {
  const std::string run = R"([pipeline]
device = "emulated"
layout = "auto"
stages = 2
replicas = 2
[emulated]
parameters = )";
  const auto sync = [&](const std::string& rest) { return parse_run(run + rest, "run.toml")->sync; };
  EXPECT_EQ(sync("2500000").mode, "exact");
  EXPECT_EQ(sync("2500000").every, 1u);
  EXPECT_EQ(sync("2600000").mode, "sparseloco");
  EXPECT_EQ(sync("2600000").every, 30u);
  EXPECT_EQ(*sync("2600000").learning_rate, 2.0);
  EXPECT_EQ(*sync("2600000\n[sync]\nmode = \"sparseloco\"\nresidual = \"memory\"").learning_rate, 1.0);
  EXPECT_EQ(sync("2600000\n[link]\nbandwidth_mbps = 100").mode, "exact");
  EXPECT_EQ(sync("2600000\n[run]\ndeterministic = true").mode, "exact");
  EXPECT_EQ(*sync("1\n[sync]\nmode = \"diloco\"").momentum, 0.9);
  EXPECT_EQ(*sync("1\n[sync]\nmode = \"diloco\"\nmomentum = 0").momentum, 0.0);
  EXPECT_EQ(sync("1\n[sync]\nmode = \"slices\"").every, 1u);
}

TEST(LoadRun, RefusesWhatASyncCannotUse) {
  const auto sync = [](const std::string& lines) {
    return problems_of(std::string(kShortest) + "[sync]\n" + lines + "\n");
  };
  EXPECT_THAT(
      sync("every = 5"),
      ElementsAre("run.toml:7:9: sync.every without sync.mode, expected no such key, or sync.mode = \"diloco\", "
                  "\"sparseloco\" or \"slices\""));
  EXPECT_THAT(sync("mode = \"exact\"\nrule = \"median\""),
              ElementsAre(HasSubstr("sync.rule with sync.mode = \"exact\"")));
  EXPECT_THAT(sync("mode = \"diloco\"\nshare = 0.1"),
              ElementsAre(HasSubstr("expected no such key, or sync.mode = \"slices\"")));
  EXPECT_THAT(sync("mode = \"slices\"\nerror_feedback = 0.1"),
              ElementsAre(HasSubstr("expected no such key, or sync.mode = \"sparseloco\"")));
  EXPECT_THAT(sync("mode = \"sparseloco\"\n[run]\ndeterministic = true"),
              ElementsAre(HasSubstr("sync.mode = \"sparseloco\" with run.deterministic")));
  EXPECT_THAT(sync("mode = \"sparse\""), ElementsAre(HasSubstr("sync.mode is \"sparse\", expected one of")));
  EXPECT_THAT(problems_of(std::string(kShortest) + "[rehearsal]\nlie = \"not_finite\"\n"),
              ElementsAre(HasSubstr("rehearsal.lie without rehearsal.liar")));
}

TEST(LoadRun, HoldsTheModelToItsHeads) {
  EXPECT_THAT(problems_of(std::string(kShortest) + "[model]\nheads = 3\n"),
              ElementsAre("run.toml:7:9: model.heads is 3, expected a divisor of model.hidden = 256"));
  EXPECT_THAT(problems_of(std::string(kShortest) + "[model]\nheads = 256\n"),
              ElementsAre(HasSubstr("run.toml:7:9: model.heads = 256 makes heads 1 wide, expected an "
                                    "even width")));
}

struct BadMap {
  const char* stages;
  const char* problem;
};

class LayerMapProblem : public testing::TestWithParam<BadMap> {};

TEST_P(LayerMapProblem, IsNamedWhereItIs) {
  const std::string data = "[data]\ntrain = \"t\"\nvalidation = \"v\"\n";
  std::string stages;
  std::istringstream lines(GetParam().stages);
  for (std::string line; lines >> line;) stages += "[[pipeline.stage]]\nlayers = \"" + line + "\"\n";
  EXPECT_THAT(problems_of(data + stages), ElementsAre(GetParam().problem));
}

INSTANTIATE_TEST_SUITE_P(
    All, LayerMapProblem,
    testing::Values(BadMap{"1:8", "run.toml:5:10: layers 0:1 are in no stage, expected stage 0 to begin with layer 0"},
                    BadMap{"0:3 4:8",
                           "run.toml:7:10: layers 3:4 are in no stage, expected stage 1 to begin with layer 3"},
                    BadMap{"0:4 3:8",
                           "run.toml:7:10: stage 1 begins with layer 3, which an earlier one has, expected stage "
                           "1 to begin with layer 4"},
                    BadMap{"0:4 4:7", "run.toml:7:10: the last stage ends with 7, expected model.layers = 8"},
                    BadMap{"0:4 4:9", "run.toml:7:10: the last stage ends with 9, expected model.layers = 8"},
                    BadMap{"0:4 4:4 4:8",
                           "run.toml:7:10: pipeline.stage[1].layers is \"4:4\", expected \"first:end\" with first "
                           "below end"},
                    BadMap{"0:4 8:4",
                           "run.toml:7:10: pipeline.stage[1].layers is \"8:4\", expected \"first:end\" with first "
                           "below end"},
                    BadMap{"0-8",
                           "run.toml:5:10: pipeline.stage[0].layers is \"0-8\", expected \"first:end\", end not "
                           "included, for instance \"0:2\""},
                    BadMap{"0:99999",
                           "run.toml:5:10: pipeline.stage[0].layers is \"0:99999\", expected \"first:end\", end "
                           "not included, for instance \"0:2\""}));

TEST(LoadRun, WantsALayerMap) {
  const std::string data = "[data]\ntrain = \"t\"\nvalidation = \"v\"\n";
  EXPECT_THAT(problems_of(data),
              ElementsAre(HasSubstr("run.toml: there is no [[pipeline.stage]], expected one per stage")));
  EXPECT_THAT(problems_of(data + "[[pipeline.stage]]\nreplicas = 1\n"),
              ElementsAre(HasSubstr("run.toml:4:1: pipeline.stage[0].layers is missing")));
  EXPECT_THAT(problems_of(std::string(kShortest) + "replicas = 129\n"),
              ElementsAre(HasSubstr("run.toml:6:12: pipeline.stage[0].replicas is 129, expected")));
  EXPECT_THAT(problems_of(std::string(kShortest) + "replicas = 2\n"), IsEmpty());
  EXPECT_THAT(problems_of(std::string("[pipeline]\nreplicas = 3\n") + kShortest),
              ElementsAre(HasSubstr("run.toml:2:12: pipeline.replicas is 3, expected replicas in each")));
  EXPECT_THAT(problems_of(std::string("[pipeline]\nstages = 3\n") + kShortest),
              ElementsAre(HasSubstr("run.toml:2:10: pipeline.stages is 3, expected 1, the number of")));
}

TEST(LoadRun, MakesABalancedMapForLayoutAuto) {
  const std::string data = "[data]\ntrain = \"t\"\nvalidation = \"v\"\n";
  const auto run = parse_run(data + "[pipeline]\nlayout = \"auto\"\nstages = 3\n", "run.toml");
  ASSERT_TRUE(run.has_value());
  EXPECT_THAT(run->pipeline.stage, ElementsAre(spec::RunConfig::Stage{0, 3, 1}, spec::RunConfig::Stage{3, 6, 1},
                                               spec::RunConfig::Stage{6, 8, 1}));
  EXPECT_EQ(run->pipeline.stages, 3u);
  EXPECT_EQ(run->pipeline.layout, "explicit");
  EXPECT_EQ(run->boundary.factored_layers, 6u);
}

TEST(LoadRun, RefusesALayoutAutoThatCannotBe) {
  const std::string data = "[data]\ntrain = \"t\"\nvalidation = \"v\"\n[pipeline]\nlayout = \"auto\"\n";
  EXPECT_THAT(problems_of(data), ElementsAre("run.toml:4:1: pipeline.stages is missing, expected 1 to "
                                             "model.layers = 8, with pipeline.layout = \"auto\""));
  EXPECT_THAT(problems_of(data + "stages = 9\n"), ElementsAre(HasSubstr("pipeline.stages is 9")));
  EXPECT_THAT(problems_of(data + "stages = 1\n[[pipeline.stage]]\nlayers = \"0:8\"\n"),
              ElementsAre(HasSubstr("[[pipeline.stage]] with pipeline.layout = \"auto\"")));
}

TEST(LoadRun, KeepsFactoredLayersBetweenTheTailAndTheEnd) {
  EXPECT_THAT(problems_of(with(kFull, "factored_layers = 6", "factored_layers = 2")),
              ElementsAre(HasSubstr("boundary.factored_layers is 2, expected 3 to 8")));
  EXPECT_THAT(problems_of(with(kFull, "factored_layers = 6", "factored_layers = 9")),
              ElementsAre(HasSubstr("boundary.factored_layers is 9, expected 3 to 8")));
  EXPECT_THAT(problems_of(with(kFull, "factored_layers = 6", "factored_layers = 3")), IsEmpty());
  EXPECT_THAT(problems_of(with(kFull, "factored_layers = 6", "factored_layers = 8")), IsEmpty());
}

TEST(LoadRun, RefusesSubspaceKeysWithTheIdentityCodec) {
  EXPECT_THAT(problems_of(with(kFull, "codec = \"subspace\"", "codec = \"identity\"")),
              ElementsAre(HasSubstr("boundary.rank with boundary.codec = \"identity\""),
                          HasSubstr("boundary.factored_layers with")));
  const auto run = parse_run(std::string(kShortest) + "[boundary]\ncodec = \"identity\"\n", "run.toml");
  ASSERT_TRUE(run.has_value());
  EXPECT_EQ(run->boundary.factored_layers, 0u);
}

TEST(LoadRun, RefusesKeysOfAnotherCodec) {
  const auto with_codec = [](const std::string& rest) {
    return problems_of(std::string(kShortest) + "[boundary]\n" + rest);
  };
  EXPECT_THAT(with_codec("codec = \"bottleneck\"\nfactored_layers = 8\n"),
              ElementsAre(HasSubstr("one of the codecs subspace, narrow, projected")));
  EXPECT_THAT(with_codec("codec = \"narrow\"\nerror_feedback = true\n"),
              ElementsAre(HasSubstr("boundary.codec = \"top_k\"")));
  EXPECT_THAT(with_codec("codec = \"top_k\"\nerror_feedback = true\n"), IsEmpty());
  EXPECT_THAT(with_codec("codec = \"top_k\"\nerror_feedback = true\n[run]\ndeterministic = true\n"),
              ElementsAre(HasSubstr("depends on the order of the microbatches")));
  EXPECT_THAT(with_codec("codec = \"top_k\"\nrank = 300\n"), ElementsAre(HasSubstr("at most model.hidden = 256")));
}

TEST(LoadRun, SkipsStagesOnlyWhereThatMakesSense) {
  const auto with_rest = [](const std::string& rest) {
    return problems_of(
        with(kShortest, "[[pipeline.stage]]\nlayers = \"0:8\"\n", "[pipeline]\nlayout = \"auto\"\nstages = 4\n") +
        rest);
  };
  EXPECT_THAT(with_rest("skip_share = 0.25\n"), IsEmpty());
  EXPECT_THAT(with_rest("skip_share = 0.26\n"),
              ElementsAre(HasSubstr("pipeline.skip_share is 0.26, expected at most 0.250")));
  EXPECT_THAT(with_rest("skip_share = 0.2\n[boundary]\ncodec = \"learned\"\n"),
              ElementsAre(HasSubstr("no stage can be passed by")));
  EXPECT_THAT(with_rest("[recovery]\nskip_after_s = 3\n[boundary]\ncodec = \"bottleneck\"\n"),
              ElementsAre(HasSubstr("recovery.skip_after_s with boundary.codec")));
  EXPECT_THAT(problems_of(with(kShortest, "[[pipeline.stage]]\nlayers = \"0:8\"\n",
                               "[pipeline]\nskip_share = 0.1\nlayout = \"auto\"\nstages = 2\n")),
              ElementsAre(HasSubstr("at most 0.000")));
  const auto seconds = [](const std::string& rest) {
    return parse_run(std::string(kShortest) + rest, "run.toml")->recovery.skip_after_s;
  };
  EXPECT_EQ(seconds(""), 20u);
  EXPECT_EQ(seconds("[run]\ndeterministic = true\n"), 0u);
  EXPECT_EQ(seconds("[boundary]\ncodec = \"learned\"\n"), 0u);
  EXPECT_EQ(seconds("[recovery]\nskip_after_s = 7\n"), 7u);
}

TEST(LoadRun, RefusesEmulatedTimesOnARealDevice) {
  EXPECT_THAT(problems_of(with(kFull, "device = \"emulated\"", "device = \"cpu\"")),
              ElementsAre(HasSubstr("[emulated] with pipeline.device = \"cpu\"")));
}

TEST(LoadRun, WantsDataUnlessTheDeviceIsEmulated) {
  const std::string map = "[[pipeline.stage]]\nlayers = \"0:8\"\n";
  EXPECT_THAT(problems_of("[pipeline]\ndevice = \"emulated\"\n" + map), IsEmpty());
  EXPECT_THAT(problems_of("[data]\ntrain = \"\"\n" + map),
              ElementsAre(HasSubstr("run.toml:1:1: data.validation is missing"),
                          HasSubstr("run.toml:2:9: data.train is empty")));
}

TEST(LoadRun, RefusesADeterministicRunWithSeveralThreads) {
  EXPECT_THAT(problems_of(with(kFull, "threads = 1", "threads = 2")),
              ElementsAre(HasSubstr("pipeline.threads is 2, expected 0 or 1 with run.deterministic")));
}

TEST(LoadRun, RefusesAWarmUpLongerThanTheRun) {
  EXPECT_THAT(problems_of(with(kFull, "warmup_steps = 4\nschedule_steps = 39", "warmup_steps = 41")),
              ElementsAre(HasSubstr("train.warmup_steps is 41, expected at most run.steps = 40")));
}

TEST(LoadRun, RefusesADeviceThatBecomesSlowInNoStep) {
  EXPECT_THAT(problems_of(std::string(kShortest) + "[pipeline]\ndevice = \"emulated\"\n[emulated]\nslow_after = 4\n"),
              ElementsAre(HasSubstr("emulated.slow_after is 4, of no step, expected emulated.slow_step beside it")));
}

TEST(LoadRun, ShortensTheDefaultWarmUpOfAShortRun) {
  const auto run = parse_run(std::string(kShortest) + "[run]\nsteps = 3\n", "run.toml");
  ASSERT_TRUE(run.has_value());
  EXPECT_EQ(run->train.warmup_steps, 3u);
}

TEST(LoadRun, RefusesSizesWhoseProductIsAbsurd) {
  EXPECT_THAT(problems_of(std::string(kShortest) + "[model]\ncontext = 1048576\nhidden = 65536\nheads = 1024\n"),
              ElementsAre(HasSubstr("hidden 65536 has 1024.0 GiB, expected at most 2 GiB")));
  EXPECT_THAT(problems_of(std::string(kShortest) + "[model]\nvocabulary = 16777216\ncontext = 65536\n"),
              ElementsAre(HasSubstr("the logits of 4 sequences x 65536 tokens")));
  EXPECT_THAT(problems_of(std::string(kShortest) + "[model]\nvocabulary = 16777216\nhidden = 65536\ncontext = 64\n"),
              ElementsAre(HasSubstr("a table of vocabulary 16777216 x hidden 65536 has 4096 GiB")));
}

TEST(LoadRun, ReadsCreditsAsAWordOrANumber) {
  const auto credits = [](const std::string& value) {
    return problems_of(std::string("[pipeline]\ncredits = ") + value + "\n" + kShortest);
  };
  EXPECT_THAT(credits("\"auto\""), IsEmpty());
  EXPECT_THAT(credits("1"), IsEmpty());
  EXPECT_THAT(credits("0"), ElementsAre(HasSubstr("expected \"auto\" or a whole number, 1 to 65536")));
  EXPECT_THAT(credits("\"8\""), ElementsAre(HasSubstr("pipeline.credits is \"8\"")));
  EXPECT_THAT(credits("2.5"), ElementsAre(HasSubstr("pipeline.credits is 2.5")));
}

TEST(LoadRun, RefusesControlCharactersInPaths) {
  EXPECT_THAT(problems_of(with(kShortest, "train.bin", "tr\\nain.bin")),
              ElementsAre(HasSubstr("data.train holds a control character")));
}

TEST(LoadRun, StopsCountingOutProblemsAtAHundred) {
  std::string text = kShortest;
  for (int i = 0; i < 250; ++i) text += "key" + std::to_string(i) + " = 1\n";
  const auto problems = problems_of(text);
  ASSERT_EQ(problems.size(), 101u);
  EXPECT_EQ(problems.back(), "run.toml: there are 150 problems more, expected the first 100 to be mended first");
}

// A folder of this test alone, gone afterwards.
class LoadRunFile : public testing::Test {
 protected:
  LoadRunFile() : folder_(testing::TempDir() + "load_run." + std::to_string(::getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~LoadRunFile() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& text) const {
    const std::string path = folder_ + "/run.toml";
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  const std::string folder_;
};

std::string only_problem(const std::string& path) {
  const auto run = load_run(path);
  return run || run.error().size() != 1 ? "not one problem" : run.error().front().text();
}

TEST_F(LoadRunFile, EqualsItsText) {
  const auto run = load_run(write(kFull));
  ASSERT_TRUE(run.has_value());
  EXPECT_EQ(*run, *parse_run(kFull, folder_ + "/x"));
}

TEST_F(LoadRunFile, MayNotBeMissing) {
  EXPECT_THAT(only_problem(folder_ + "/none.toml"), HasSubstr("/none.toml: there is no such file"));
}

TEST_F(LoadRunFile, MayNotBeAFolder) {
  EXPECT_THAT(only_problem(folder_), HasSubstr("this is a folder, expected a run file"));
}

TEST_F(LoadRunFile, MayNotBeLongerThanAMebibyte) {
  std::string text = std::string(kShortest) + "#";
  text.resize(1 << 20, 'x');
  EXPECT_TRUE(load_run(write(text)).has_value());
  EXPECT_THAT(only_problem(write(text + "x")), HasSubstr("expected a run file of at most 1 MiB"));
}

TEST_F(LoadRunFile, MayNotBeEndless) {
  EXPECT_THAT(only_problem("/dev/zero"), HasSubstr("this is a device, expected a run file"));
  std::ofstream(folder_ + "/long.toml") << std::string((1 << 20) + 1, '#');
  EXPECT_THAT(only_problem(folder_ + "/long.toml"), HasSubstr("expected a run file of at most 1 MiB"));
}

// Nobody writes into it.
TEST_F(LoadRunFile, IsNotWaitedFor) {
  ASSERT_EQ(::mkfifo((folder_ + "/pipe.toml").c_str(), 0600), 0);
  EXPECT_THAT(only_problem(folder_ + "/pipe.toml"), HasSubstr("this is a named pipe, expected a run file"));
}

}  // namespace
}  // namespace isthmus::config
