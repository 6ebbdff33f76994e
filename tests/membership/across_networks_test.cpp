// A run whose processes have an address each: network namespaces on one bridge, as machines on one switch.

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "membership/by_hand.h"

namespace {

// The switch is in the coordinator's namespace. Everything a test makes here goes with its namespaces.
class AcrossNetworksTest : public ByHandTest {
 protected:
  void SetUp() override {
    ByHandTest::SetUp();
    sweep_up();
    const std::string inside = "ip -n " + space("coordinator") + " ";
    if (!command("ip netns add " + space("coordinator")) || !command(inside + "link add switch type bridge"))
      GTEST_SKIP() << "needs root, iproute2 and bridges, to make network namespaces";
    ASSERT_TRUE(command(inside + "link set lo up") && command(inside + "addr add 10.77.0.1/24 dev switch") &&
                command(inside + "link set switch up"));
    plug_in("one", "10.77.0.2");
    plug_in("two", "10.77.0.3");
  }
  void TearDown() override {
    ByHandTest::TearDown();
    for (const char* name : {"one", "two", "coordinator"}) (void)command("ip netns del " + space(name));
  }
  static bool command(const std::string& line) { return std::system(line.c_str()) == 0; }
  // What tests that were killed have left.
  static void sweep_up() {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator("/run/netns", none)) {
      const std::string name = entry.path().filename();
      int pid = 0;
      if (std::sscanf(name.c_str(), "isthmus-%d-", &pid) == 1 && ::kill(pid, 0) != 0)
        (void)command("ip netns del " + name);
    }
  }
  static std::string space(const std::string& name) { return "isthmus-" + std::to_string(::getpid()) + "-" + name; }
  static void plug_in(const std::string& name, const std::string& address) {
    const std::string inside = "ip -n " + space(name) + " ", at_switch = "ip -n " + space("coordinator") + " ";
    ASSERT_TRUE(command("ip netns add " + space(name)) && command(inside + "link set lo up") &&
                command(inside + "link add uplink type veth peer name " + name + " netns " + space("coordinator")) &&
                command(inside + "addr add " + address + "/24 dev uplink") && command(inside + "link set uplink up") &&
                command(at_switch + "link set " + name + " master switch up"));
  }
  // Whether the two workers see each other; the coordinator sees both.
  static void set_apart(bool apart) {
    for (const char* name : {"one", "two"})
      ASSERT_TRUE(command("ip netns exec " + space("coordinator") + " bridge link set dev " + name + " isolated " +
                          (apart ? "on" : "off")));
  }
  static std::function<void()> within(const std::string& name) {
    return [path = "/run/netns/" + space(name)] {
      const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
      if (fd < 0 || ::setns(fd, CLONE_NEWNET) != 0) ::_exit(126);
    };
  }
  pid_t coordinate() { return ByHandTest::coordinate({"--listen", "10.77.0.1"}, within("coordinator")); }
  pid_t work(const std::string& name) { return ByHandTest::work(name, {}, within(name)); }
};

TEST_F(AcrossNetworksTest, WorkersAreReachedWhereTheCoordinatorIsReachedFrom) {
  const pid_t coordinator = coordinate(), one = work("one"), two = work("two");
  const auto done = end(coordinator, "coordinator");
  EXPECT_EQ(done.code, 0) << done.output << events() << read(output("one")) << read(output("two"));
  EXPECT_EQ(end(one, "one").code, 0) << read(output("one"));
  EXPECT_EQ(end(two, "two").code, 0) << read(output("two"));
  expect_undisturbed();
}

TEST_F(AcrossNetworksTest, SaysWhoCannotReachWhomAndGoesOnOnceTheyCan) {
  set_apart(true);
  const pid_t coordinator = coordinate(), one = work("one"), two = work("two");
  ASSERT_TRUE(eventually([&] { return events().find("\"unreachable\"") != std::string::npos; }))
      << events() << read(output("coordinator"));
  // Whoever is named, with the address that was tried.
  EXPECT_NE(events().find("tcp://10.77.0."), std::string::npos) << events();
  EXPECT_NE(read(output("coordinator")).find("unreachable: no connection with worker"), std::string::npos)
      << read(output("coordinator"));
  set_apart(false);
  const auto done = end(coordinator, "coordinator");
  EXPECT_EQ(done.code, 0) << done.output << events();
  EXPECT_EQ(end(one, "one").code, 0) << read(output("one"));
  EXPECT_EQ(end(two, "two").code, 0) << read(output("two"));
  expect_undisturbed();
}

}  // namespace
