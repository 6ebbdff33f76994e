#include <gmock/gmock.h>

#include "config/load_run.h"
#include "config/run_text.h"

namespace isthmus::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

spec::RunConfig run_with(const std::string& text, const std::vector<std::string>& overrides) {
  const auto run = parse_run(text, "run.toml", overrides);
  EXPECT_TRUE(run.has_value()) << run.error().front().text();
  return run.value_or(spec::RunConfig());
}

TEST(Override, TakesTheFilesPlace) {
  const auto run = run_with(
      kFull, {"train.learning_rate=2e-3", "run.deterministic=false", "boundary.rank=8", "pipeline.credits=auto"});
  EXPECT_EQ(run.train.learning_rate, 2e-3);
  EXPECT_FALSE(run.run.deterministic);
  EXPECT_EQ(run.boundary.rank, 8u);
  EXPECT_EQ(run.pipeline.credits, "auto");
}

TEST(Override, ReadsABareWordAsAString) {
  const auto run = run_with(kShortest, {"data.train=a dir/x.bin", "pipeline.schedule=1f1b", "run.name=\"quoted\""});
  EXPECT_EQ(run.host.data.train, "a dir/x.bin");
  EXPECT_EQ(run.pipeline.schedule, "1f1b");
  EXPECT_EQ(run.run.name, "quoted");
}

TEST(Override, MayAddATable) { EXPECT_EQ(run_with(kShortest, {"model.context=32"}).model.context, 32u); }

TEST(Override, LastOneWins) { EXPECT_EQ(run_with(kShortest, {"run.seed=2", "run.seed=3"}).run.seed, 3u); }

TEST(Override, PassesTheSameChecks) {
  EXPECT_THAT(problems_of(kShortest, {"boundary.rank=300", "run.steps=many", "run.sead=2", "mdel.hidden=3"}),
              testing::UnorderedElementsAre("--set: boundary.rank is 300, expected at most model.hidden = 256",
                                            "--set: run.steps is \"many\", expected a whole number, 1 to 1000000000",
                                            "--set: unknown key \"sead\" in run, did you mean \"seed\"?",
                                            "--set: unknown key \"mdel\", did you mean \"model\"?"));
}

TEST(Override, ProblemsComeAfterThoseOfTheFile) {
  EXPECT_THAT(problems_of(with(kFull, "seed = 7", "seed = -7"), {"run.steps=0"}),
              ElementsAre(HasSubstr("run.toml:4:8: run.seed is -7"), HasSubstr("--set: run.steps is 0")));
}

TEST(Override, IsNotBlamedForWhatTheFileLacks) {
  EXPECT_THAT(problems_of("[[pipeline.stage]]\nlayers = \"0:8\"\n", {"data.train=x"}),
              ElementsAre(HasSubstr("run.toml: data.validation is missing")));
}

TEST(Override, RefusesWhatSetsNothing) {
  for (const std::string text : {"", "=", "rank", "rank=3", ".rank=3", "boundary.=3", "boundary=3.5"})
    EXPECT_THAT(problems_of(kShortest, {text}), ElementsAre(HasSubstr("expected section.key=value"))) << text;
  for (const std::string text : {"run.name=", "run.name=\"a", "run.name=a\nseed=3", "run.name=[1"})
    EXPECT_THAT(problems_of(kShortest, {text}), ElementsAre(HasSubstr("expected a TOML value or a word after the =")))
        << text;
}

TEST(Override, CannotSetTheLayerMap) {
  for (const std::string text : {"pipeline.stage=1", "pipeline.stage[0].layers=0:8"})
    EXPECT_THAT(problems_of(kShortest, {text}),
                ElementsAre(HasSubstr("--set: pipeline.stage cannot be set on the command line")));
}

TEST(Override, OfTheCodecTakesTheOldCodecsKeysOut) {
  const auto run = run_with(kFull, {"boundary.codec=identity"});
  EXPECT_EQ(run.boundary.codec, "identity");
  EXPECT_EQ(run.boundary.factored_layers, 0u);
  EXPECT_THAT(problems_of(kFull, {"boundary.codec=identity", "boundary.rank=4"}),
              ElementsAre(HasSubstr("--set: boundary.rank with boundary.codec = \"identity\"")));
}

TEST(Override, OfTheDeviceTakesTheEmulatedTimesOut) {
  EXPECT_EQ(run_with(kFull, {"pipeline.device=cpu"}).emulated, spec::RunConfig::Emulated());
  EXPECT_THAT(problems_of(kFull, {"pipeline.device=cpu", "emulated.forward_ms=3"}),
              ElementsAre(HasSubstr("[emulated] with pipeline.device = \"cpu\"")));
}

TEST(Override, OfTheLayoutTakesTheLayerMapOut) {
  const auto run = run_with(kFull, {"pipeline.layout=auto", "pipeline.stages=4"});
  EXPECT_EQ(run.pipeline.stage.size(), 4u);
}

}  // namespace
}  // namespace isthmus::config
