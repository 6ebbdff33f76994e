#include "store/checkpoint.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/counter_random.h"

namespace isthmus::store {
namespace {

namespace fs = std::filesystem;

class CheckpointTest : public ::testing::Test {
 protected:
  void TearDown() override { fs::remove_all(folder_); }
  CheckpointPlace place(std::uint32_t stage = 0) const { return {folder_, StageId(stage), 0, 2}; }
  Status write(std::uint64_t version, std::uint32_t stage = 0, std::uint32_t keep = 2, std::size_t floats = 100,
               std::uint32_t timeline = 0) const {
    const std::vector<float> values(floats, static_cast<float>(version));
    const ByteView bytes(reinterpret_cast<const std::uint8_t*>(values.data()), floats * 4);
    auto written =
        write_checkpoint(place(stage), version, timeline, {{"w", {static_cast<std::int64_t>(floats)}, bytes}},
                         {{"m", {static_cast<std::int64_t>(floats)}, bytes}});
    if (written) prune_checkpoints(place(stage), keep, version);
    return written;
  }
  std::string file(std::uint64_t version, const std::string& name) const {
    return fmt::format("{}/stage-0/step-{:08}/{}", folder_, version, name);
  }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-checkpoint-" + std::to_string(::getpid());
};

TEST_F(CheckpointTest, ComesBackAndKeepsTheNewest) {
  for (std::uint64_t v : {5, 10, 15}) ASSERT_TRUE(write(v));
  EXPECT_EQ(checkpoint_versions(folder_, StageId(0)), std::vector<std::uint64_t>({10, 15}));
  const auto loaded = read_checkpoint(place(), 15);
  ASSERT_TRUE(loaded) << loaded.error().message;
  float first;
  std::memcpy(&first, loaded->weights.tensors.at("w").bytes.data(), 4);
  EXPECT_EQ(first, 15.0f);
}

// A stage whose disk is full would be left alone with its old version, and the run without a checkpoint.
TEST_F(CheckpointTest, KeepsTheOneThatIsWholeOnEveryStageAndTheNewest) {
  for (std::uint64_t v : {5, 10, 15, 20}) ASSERT_TRUE(write(v, 0, 9));
  prune_checkpoints(place(), 3, 5);
  EXPECT_EQ(checkpoint_versions(folder_, StageId(0)), std::vector<std::uint64_t>({5, 10, 15, 20}));
  prune_checkpoints(place(), 2, 5);
  EXPECT_EQ(checkpoint_versions(folder_, StageId(0)), std::vector<std::uint64_t>({5, 15, 20}));
  // Another stage may be one behind.
  prune_checkpoints(place(), 1, 0);
  EXPECT_EQ(checkpoint_versions(folder_, StageId(0)), std::vector<std::uint64_t>({15, 20}));
}

TEST_F(CheckpointTest, FindsTheNewestVersionThatEveryStageHas) {
  ASSERT_TRUE(write(10, 0, 9));
  ASSERT_TRUE(write(20, 0, 9));
  EXPECT_EQ(newest_common_version(folder_, 2), std::nullopt);
  ASSERT_TRUE(write(10, 1, 9));
  EXPECT_EQ(newest_common_version(folder_, 2), 10u);
}

TEST_F(CheckpointTest, DoesNotCountOneWithoutAManifest) {
  ASSERT_TRUE(write(10));
  fs::remove(file(10, "manifest.json"));
  EXPECT_TRUE(checkpoint_versions(folder_, StageId(0)).empty());
}

TEST_F(CheckpointTest, RefusesAnotherStageOrLayerRange) {
  ASSERT_TRUE(write(10));
  auto other = place();
  other.end_layer = 3;
  EXPECT_FALSE(read_checkpoint(other, 10));
  EXPECT_FALSE(read_checkpoint(place(), 11));
}

TEST_F(CheckpointTest, NamesTheFileThatIsTruncatedOrDamaged) {
  for (const char* name : {"weights.safetensors", "optimizer.safetensors", "manifest.json"}) {
    ASSERT_TRUE(write(10));
    const auto size = fs::file_size(file(10, name));
    fs::resize_file(file(10, name), size / 2);
    auto loaded = read_checkpoint(place(), 10);
    ASSERT_FALSE(loaded);
    EXPECT_NE(loaded.error().message.find(name), std::string::npos) << loaded.error().message;
    fs::remove(file(10, name));
    EXPECT_FALSE(read_checkpoint(place(), 10));
  }
  const CounterRandom random(1, "flips");
  ASSERT_TRUE(write(10));
  for (const char* name : {"weights.safetensors", "optimizer.safetensors"}) {
    std::ifstream in(file(10, name), std::ios::binary);
    const std::string good((std::istreambuf_iterator<char>(in)), {});
    for (std::uint64_t n = 0; n < 200; ++n) {
      std::string damaged = good;
      damaged[random.below(good.size(), n)] ^= 16;
      std::ofstream(file(10, name), std::ios::binary) << damaged;
      EXPECT_FALSE(read_checkpoint(place(), 10));
    }
    std::ofstream(file(10, name), std::ios::binary) << good;
  }
  EXPECT_TRUE(read_checkpoint(place(), 10));
}

TEST_F(CheckpointTest, LeavesEarlierOnesAloneWhenTheDiskIsFull) {
  ASSERT_TRUE(write(10));
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const auto written = write(20, 0, 2, 10'000);
    ::_exit(!written && written.error().message.find("earlier checkpoints are untouched") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(checkpoint_versions(folder_, StageId(0)), std::vector<std::uint64_t>({10}));
  EXPECT_TRUE(read_checkpoint(place(), 10));
}

}  // namespace
}  // namespace isthmus::store
