// The model of a run whose machines are gone: what its vault has is exported, continued as text, and trained on.

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "membership/by_hand.h"
#include "membership/marks.h"

namespace {

namespace fs = std::filesystem;

class VaultsModelTest : public ByHandTest {
 protected:
  void SetUp() override {
    CommandLineTest::SetUp();
    end_run_file("[pipeline]\nlayout = \"auto\"\nstages = 2\n[checkpoint]\nevery = 10\n");
  }
  static Marks marks(const std::string& checkpoint) {
    Marks marks;
    for (const char* file : {"/weights.safetensors", "/optimizer.safetensors"})
      marks.add_tensors(checkpoint + file, 64);
    EXPECT_GT(marks.size(), 1000u) << checkpoint;
    return marks;
  }
};

TEST_F(VaultsModelTest, IsExportedContinuedAndTrainedOnWithoutTheMachinesThatMadeIt) {
  const pid_t coordinator = coordinate();
  const pid_t one = work("one"), two = work("two");
  const auto done = end(coordinator, "coordinator");
  ASSERT_EQ(done.code, 0) << done.output << events();
  EXPECT_EQ(end(one, "one").code, 0);
  EXPECT_EQ(end(two, "two").code, 0);
  // Nobody has another stage's weights, and who keeps the vault has none.
  const bool one_first = fs::exists(folder_ + "/one/checkpoint/stage-0");
  const std::string first = one_first ? "/one" : "/two", last = one_first ? "/two" : "/one";
  const auto of_first = marks(folder_ + first + "/checkpoint/stage-0/step-00000020");
  const auto of_last = marks(folder_ + last + "/checkpoint/stage-1/step-00000020");
  EXPECT_EQ(of_first.holder(folder_ + last), "");
  EXPECT_EQ(of_last.holder(folder_ + first), "");
  EXPECT_NE(of_first.holder(folder_ + first), "");
  for (const auto& marks : {of_first, of_last}) EXPECT_EQ(marks.holder(folder_ + "/out"), "");

  for (const auto& home : {first, last}) fs::remove_all(folder_ + home);
  const auto generated = run({"generate", folder_ + "/out", "--prompt", "the quick", "--tokens", "8"});
  EXPECT_EQ(generated.code, 0) << generated.output;
  EXPECT_NE(generated.output.find("from the vault " + folder_ + "/out/vault"), std::string::npos) << generated.output;
  const auto exported = run({"export", folder_ + "/out", folder_ + "/hf"});
  EXPECT_EQ(exported.code, 0) << exported.output;
  EXPECT_EQ(exported.output.find("from the vault"), std::string::npos) << "it is here already\n" << exported.output;
  const auto on = run(
      {"train", folder_ + "/run.toml", "--out", folder_ + "/on", "--from", folder_ + "/out", "--set", "run.steps=21"});
  EXPECT_EQ(on.code, 0) << on.output;
}

// With another key, or none, it stays shut.
TEST_F(VaultsModelTest, IsNobodysButItsOwners) {
  const pid_t coordinator = coordinate({"--set", "run.steps=10"});
  const pid_t one = work("one"), two = work("two");
  ASSERT_EQ(end(coordinator, "coordinator").code, 0) << read(output("coordinator"));
  (void)end(one, "one");
  (void)end(two, "two");
  fs::rename(folder_ + "/out/owner.key", folder_ + "/owner.key");
  const auto without = run({"generate", folder_ + "/out", "--prompt", "a", "--tokens", "4"});
  EXPECT_EQ(without.code, 1);
  EXPECT_NE(without.output.find("only its owner may put the stages of the run"), std::string::npos) << without.output;
  EXPECT_EQ(
      run({"generate", folder_ + "/out", "--prompt", "a", "--tokens", "4", "--owner-key", folder_ + "/owner.key"}).code,
      0);
  // Damaged, it is not taken for what it was.
  fs::remove_all(folder_ + "/out/checkpoint");
  for (const auto& entry : fs::recursive_directory_iterator(folder_ + "/out/vault"))
    if (entry.path().filename() == "block-000000") {
      std::string bytes = read(entry.path());
      bytes[bytes.size() / 2] ^= 1;
      std::ofstream(entry.path(), std::ios::binary) << bytes;
    }
  const auto damaged = run({"export", folder_ + "/out", folder_ + "/hf", "--owner-key", folder_ + "/owner.key"});
  EXPECT_EQ(damaged.code, 1);
  EXPECT_NE(damaged.output.find("is damaged, or was sealed with another key"), std::string::npos) << damaged.output;
}

}  // namespace
