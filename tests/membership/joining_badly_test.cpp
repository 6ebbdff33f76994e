// What `isthmus join` says where it cannot: one sentence, soon, with what to do.

#include <sys/mount.h>
#include <unistd.h>

#include <chrono>
#include <string>

#include "app/invite.h"
#include "membership/by_hand.h"

namespace {

class JoiningBadlyTest : public ByHandTest {
 protected:
  void expect_refused(const std::string& home, const std::string& why) {
    const auto refused = run({"join", folder_ + "/out/join", "--home", home, "--patience", "60"});
    EXPECT_EQ(refused.code, 1) << refused.output;
    EXPECT_NE(refused.output.find(why), std::string::npos) << refused.output;
    EXPECT_EQ(std::count(refused.output.begin(), refused.output.end(), '\n'), 1) << refused.output;
  }
};

TEST_F(JoiningBadlyTest, AHomeThatCannotBeWritten) {
  std::ofstream(folder_ + "/file") << "no folder";
  expect_refused(folder_ + "/file/home", "cannot make the folder " + folder_ + "/file/home");
}

TEST_F(JoiningBadlyTest, AFullDiskAtHome) {
  const std::string disk = folder_ + "/disk";
  std::filesystem::create_directories(disk);
  if (::mount("none", disk.c_str(), "tmpfs", 0, "size=16k") != 0) GTEST_SKIP() << "only root may mount a small disk";
  for (int i = 0; i < 64; ++i) std::ofstream(disk + "/full" + std::to_string(i)) << std::string(4096, 'x');
  expect_refused(disk, "identity.key");
  EXPECT_EQ(::umount(disk.c_str()), 0);
}

// The coordinator decides whether an invite has expired, by its own clock: whoever joins may have a wrong one.
TEST_F(JoiningBadlyTest, AClockThatIsWrongIsNoReason) {
  coordinate();
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(folder_ + "/out/join"); }));
  auto invite = isthmus::app::read_invite_file(folder_ + "/out/join");
  ASSERT_TRUE(invite) << invite.error().message;
  invite->expires_s = 1;  // in 1970, by this machine's clock
  begin("late", {"join", isthmus::app::invite_text(*invite), "--home", folder_ + "/late"});
  EXPECT_TRUE(eventually([&] { return events().find("\"seated\"") != std::string::npos; })) << read(output("late"));
}

// What it waits for is said once, and goes on being tried.
TEST_F(JoiningBadlyTest, ACoordinatorThatIsNotThereIsToldOfOnce) {
  isthmus::app::Invite invite;
  const auto identity = isthmus::Identity::keep(folder_ + "/somebody.key");
  ASSERT_TRUE(identity) << identity.error().message;
  invite.coordinator = identity->key();
  invite.key = isthmus::transport::new_key_pair();
  invite.doors = {"127.0.0.1:1", "127.0.0.1:2"};  // where nobody listens
  const auto gone = run({"join", isthmus::app::invite_text(invite), "--home", folder_ + "/one", "--patience", "6"});
  EXPECT_EQ(gone.code, 1);
  EXPECT_NE(gone.output.find("info: one: waits for a coordinator: nobody answers at 127.0.0.1:1"), std::string::npos)
      << gone.output;
  EXPECT_NE(gone.output.find("no coordinator for 6 s"), std::string::npos) << gone.output;
  EXPECT_EQ(std::count(gone.output.begin(), gone.output.end(), '\n'), 2) << gone.output;
}

// A home folder on a second machine: the first worker stays, and is not disturbed.
TEST_F(JoiningBadlyTest, AHomeThatWasCopied) {
  const pid_t coordinator = coordinate({"--set", "run.steps=1000"});
  work("one");
  const pid_t two = work("two");
  ASSERT_TRUE(reaches("out", 2)) << read(output("coordinator"));
  std::filesystem::create_directories(folder_ + "/copy");
  std::filesystem::copy_file(folder_ + "/two/identity.key", folder_ + "/copy/identity.key");
  expect_refused(folder_ + "/copy", "this identity takes part already, as worker ");
  EXPECT_EQ(events().find("\"expelled\""), std::string::npos) << events();
  // One that was killed is back at once.
  kill_at_once(two);
  work("two");
  const std::size_t steps = read(folder_ + "/out/metrics.jsonl").size();
  EXPECT_TRUE(eventually([&] { return read(folder_ + "/out/metrics.jsonl").size() > steps; })) << events();
  ::kill(coordinator, SIGTERM);
  EXPECT_EQ(end(coordinator, "coordinator").code, 130);
}

}  // namespace
