#include <gmock/gmock.h>

#include <filesystem>

#include "config/load_run.h"
#include "config/sweep_config.h"

namespace isthmus::config {
namespace {

const std::string kFolder = ISTHMUS_SOURCE_DIR "/configs/";

spec::RunConfig example(const std::string& name) {
  const auto run = load_run(kFolder + name);
  EXPECT_TRUE(run.has_value()) << run.error().front().text();
  return run.value_or(spec::RunConfig());
}

TEST(Examples, AllLoad) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    if (entry.path().extension() != ".toml") continue;
    const auto run = load_run(entry.path().string());
    EXPECT_TRUE(run.has_value()) << run.error().front().text();
    ++count;
  }
  EXPECT_GE(count, 2u);
}

TEST(Examples, EverySweepLoads) {
  std::size_t rows = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder + "convergence")) {
    if (entry.path().filename() == "base.toml") {
      (void)example("convergence/base.toml");
      continue;
    }
    const auto sweep = load_sweep(entry.path().string());
    ASSERT_TRUE(sweep.has_value()) << sweep.error().front().text();
    rows += sweep->row.size();
  }
  EXPECT_GT(rows, 4u);
}

TEST(Examples, WebsterIsAFourStageRunOverEmulatedLinks) {
  const auto run = example("webster.toml");
  EXPECT_EQ(run.pipeline.stage.size(), 4u);
  EXPECT_EQ(run.boundary.codec, "subspace");
  EXPECT_EQ(run.boundary.factored_layers, 6u);
  EXPECT_EQ(run.link.bandwidth_mbps, 80);
  EXPECT_TRUE(run.link.emulate);
}

TEST(Examples, EmulatedSendsAHundredthOfTheHiddenState) {
  const auto run = example("emulated.toml");
  EXPECT_EQ(run.pipeline.stage.size(), 8u);
  EXPECT_EQ(run.host.device, "emulated");
  EXPECT_EQ(run.model.hidden / run.boundary.rank, 99u);
}

TEST(Examples, TakeAnotherCodecDeviceOrLayoutFromTheCommandLine) {
  EXPECT_TRUE(load_run(kFolder + "webster.toml", {"boundary.codec=identity"}).has_value());
  EXPECT_TRUE(load_run(kFolder + "webster.toml", {"pipeline.layout=auto", "pipeline.stages=2"}).has_value());
  EXPECT_TRUE(
      load_run(kFolder + "emulated.toml", {"pipeline.device=cpu", "data.train=a", "data.validation=b"}).has_value());
}

}  // namespace
}  // namespace isthmus::config
