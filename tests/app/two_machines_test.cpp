// Two workers with libtorch that share nothing but the join file: folders and host files of their own, and no data, as
// on two machines.

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "membership/by_hand.h"

namespace {

namespace fs = std::filesystem;

class TwoMachinesTest : public ByHandTest {
 protected:
  void SetUp() override { CommandLineTest::SetUp(); }
  // The machine's folder is `name`.
  void install(const std::string& name, const std::string& own) const {
    fs::create_directories(folder_ + "/" + name);
    std::ofstream(folder_ + "/" + name + "/host.toml") << own;
  }
  pid_t work_at(const std::string& name) {
    return begin(
        name, {"join", folder_ + "/out/join", "--home", ".", "--name", name, "--host", "host.toml", "--patience", "60"},
        [home = folder_ + "/" + name] {
          if (::chdir(home.c_str()) != 0) ::_exit(126);
        });
  }
};

TEST_F(TwoMachinesTest, TrainTheSameWeightsAndOneComesBackFromAKill) {
  const auto whole = run({"train", folder_ + "/run.toml", "--out", folder_ + "/whole", "--set", "run.steps=40"});
  ASSERT_EQ(whole.code, 0) << whole.output;
  install("one", "[pipeline]\ndevice = \"cpu\"\nthreads = 1\nactivation_mb = 64\n[recovery]\njournal_mb = 8\n");
  // A host file may name shards, as the coordinator's does; a worker looks for none.
  install("two",
          "[data]\ntrain = \"none.bin\"\nvalidation = \"none.bin\"\n"
          "[pipeline]\nrecompute = \"always\"\n[recovery]\njournal_mb = 16\n");
  const pid_t coordinator = coordinate({"--set", "run.steps=40", "--set", "link.latency_ms=15"});
  ASSERT_TRUE(eventually([&] { return fs::exists(folder_ + "/out/join"); })) << read(output("coordinator"));
  // The coordinator has them open, and nobody else finds them.
  for (const char* shard : {"/train.bin", "/validation.bin"}) fs::remove(folder_ + shard);
  const pid_t one = work_at("one"), first_life = work_at("two");
  ASSERT_TRUE(reaches("out", 6)) << read(output("coordinator")) << read(output("one")) << read(output("two"));
  kill_at_once(first_life);
  const pid_t second_life = work_at("two");
  const auto done = end(coordinator, "coordinator");
  EXPECT_EQ(done.code, 0) << done.output << events();
  EXPECT_EQ(end(one, "one").code, 0) << read(output("one"));
  EXPECT_EQ(end(second_life, "two").code, 0) << read(output("two"));
  EXPECT_EQ(summary("out")["weights_hash"], summary("whole")["weights_hash"]);
  EXPECT_EQ(summary("out")["weights_hash"].size(), 6u);
}

}  // namespace
