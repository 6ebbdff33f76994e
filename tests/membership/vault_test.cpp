// What a run keeps when machines are gone for good: checkpoints in its vault, on the coordinator's disk or in a bucket.

#include <signal.h>

#include <filesystem>
#include <optional>
#include <string>

#include "membership/by_hand.h"
#include "store/s3_server.h"

namespace {

namespace fs = std::filesystem;

class VaultTest : public ByHandTest {
 protected:
  std::size_t count(const std::string& event) const {
    std::size_t found = 0;
    std::istringstream lines(events());
    for (std::string line; std::getline(lines, line);) {
      const auto e = nlohmann::json::parse(line, nullptr, false);
      if (e.is_object() && e["event"] == event) ++found;
    }
    return found;
  }
  nlohmann::json status() const {
    return nlohmann::json::parse(run({"status", folder_ + "/out", "--json"}).output, nullptr, false);
  }
  // Whether the vault gets step `step` of both stages.
  bool saves(std::uint64_t step) const {
    return eventually([&] {
      const auto now = status();
      return now.is_object() && now["stages"][0]["saved"] >= step && now["stages"][1]["saved"] >= step;
    });
  }
  // The machine of stage 1 is lost with its disk; another one takes its place.
  void loses_a_machine(const std::string& vault, const std::function<void()>& prepare = {}) {
    const pid_t coordinator = coordinate({"--vault", vault, "--set", "run.steps=40"}, prepare);
    work("one");
    ASSERT_TRUE(eventually(
        [&] { return read(output("one")).find("enrolled as worker 1") != std::string::npos || count("seated") == 1; }));
    const pid_t two = work("two");
    ASSERT_TRUE(saves(10)) << read(output("coordinator")) << events();
    kill_at_once(two);
    fs::remove_all(folder_ + "/two");
    ASSERT_EQ(run({"revoke", folder_ + "/out", "2"}).code, 0);
    const pid_t three = work("three");
    const auto done = end(coordinator, "coordinator");
    EXPECT_EQ(done.code, 0) << done.output << events();
    EXPECT_EQ(end(three, "three").code, 0) << read(output("three"));
    EXPECT_EQ(count("rolled back"), 0u) << events();
    EXPECT_EQ(count("warning"), 0u) << events();
    // It got there what it could have from nobody else: the steps before are not in any journal any more.
    EXPECT_FALSE(fs::exists(folder_ + "/three/checkpoint/stage-1/step-00000005")) << events();
    const std::string whole = made_once("no-machine-is-lost", [&](const std::string& folder) {
      return run({"train", folder_ + "/run.toml", "--out", folder + "/run", "--set", "run.steps=40"}).code == 0;
    });
    ASSERT_FALSE(whole.empty());
    const auto expected = nlohmann::json::parse(read(whole + "/run/summary.json"));
    EXPECT_EQ(summary("out")["weights_hash"], expected["weights_hash"]);
    EXPECT_FALSE(summary("out")["weights_hash"].empty());
  }
  // Refused before anything is begun.
  void refused(const std::vector<std::string>& more, const std::string& words,
               const std::function<void()>& prepare = {}) {
    std::vector<std::string> arguments = {"coordinator", folder_ + "/run.toml", "--out", folder_ + "/bad"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto done = run(arguments, prepare);
    EXPECT_NE(done.code, 0) << done.output;
    EXPECT_NE(done.output.find(words), std::string::npos) << words << "\n" << done.output;
    EXPECT_FALSE(fs::exists(folder_ + "/bad/join")) << words;
    fs::remove_all(folder_ + "/bad");
  }
};

TEST_F(VaultTest, AMachineIsLostWithItsDisk) {
  loses_a_machine(folder_ + "/elsewhere");
  // Nobody but the owner may look at it, and two versions are enough.
  std::size_t whole = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder_ + "/elsewhere")) {
    whole += entry.path().filename() == "whole";
    if (!entry.is_regular_file()) continue;
    EXPECT_EQ(entry.status().permissions() & fs::perms::mask, fs::perms(0600)) << entry.path();
  }
  EXPECT_EQ(whole, 4u);
}

TEST_F(VaultTest, AMachineIsLostWithItsDiskAndABucketHasIt) {
  using isthmus::store::S3Server;
  if (!S3Server::is_installed()) GTEST_SKIP() << S3Server::kHowToInstall;
  S3Server server;
  ASSERT_EQ(server.start(folder_ + "/s3", {"runs"}), "");
  loses_a_machine("s3://runs/one", [&] {
    for (const auto& [name, value] : server.environment()) ::setenv(name.c_str(), value.c_str(), 1);
  });
}

// The owner has the whole run afterwards; the coordinator went down meanwhile.
TEST_F(VaultTest, GoesOnWhenTheCoordinatorIsKilled) {
  const pid_t first = coordinate({"--set", "run.steps=30"});
  for (const char* name : {"one", "two"}) work(name);
  ASSERT_TRUE(saves(5)) << read(output("coordinator"));
  kill_at_once(first);
  const auto done = end(coordinate({"--set", "run.steps=30"}), "coordinator");
  EXPECT_EQ(done.code, 0) << done.output << events();
  EXPECT_NE(done.output.find("finished: 30 steps"), std::string::npos) << done.output;
  EXPECT_EQ(done.output.find("is not saved"), std::string::npos) << done.output;
  for (const char* stage : {"0", "1"}) {
    std::size_t last = 0;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ + "/out/vault"))
      last += entry.path().string().find(std::string("stage-") + stage + "/step-00000030/whole") != std::string::npos;
    EXPECT_EQ(last, 1u) << stage;
  }
}

TEST_F(VaultTest, SaysWhatIsWrongWithAVault) {
  const auto set = [](const char* name, const char* value) {
    return [=] { value ? ::setenv(name, value, 1) : ::unsetenv(name); };
  };
  refused({"--vault", "ftp://somewhere"}, "is no place for a vault; expected a folder, or s3://BUCKET/PREFIX");
  refused({"--vault", "s3://"}, "is no place in a bucket");
  refused({"--vault", folder_ + "/run.toml"}, "cannot make the vault's folder");
  refused({"--vault", "s3://runs/one"}, "AWS_ACCESS_KEY_ID is not set", set("AWS_ACCESS_KEY_ID", nullptr));
  refused({"--vault", "s3://runs/one"}, "AWS_ENDPOINT_URL_S3", [] {
    for (const char* name : {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}) ::setenv(name, "x", 1);
    ::setenv("AWS_ENDPOINT_URL_S3", "here", 1);
  });
  refused({"--owner-key", folder_ + "/nobody"}, "--owner-key FILE names the owner.key");
}

}  // namespace
