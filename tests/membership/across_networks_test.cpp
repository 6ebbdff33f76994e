// A run whose processes have an address each, as machines on one switch.

#include <gtest/gtest.h>

#include <string>

#include "membership/by_hand.h"
#include "membership/namespaces.h"

namespace {

class AcrossNetworksTest : public ByHandTest {
 protected:
  void SetUp() override {
    ByHandTest::SetUp();
    if (!net_.missing().empty()) GTEST_SKIP() << net_.missing();
    net_.add_machine("coordinator", 1);
    net_.add_machine("one", 2);
    net_.add_machine("two", 3);
  }
  // Whether the two workers see each other; the coordinator sees both.
  void set_apart(bool apart) {
    for (const char* name : {"one", "two"})
      ASSERT_TRUE(
          net_.on("internet", std::string("bridge link set dev ") + name + " isolated " + (apart ? "on" : "off")));
  }
  pid_t coordinate(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"--listen", "203.0.113.1"});
    return ByHandTest::coordinate(more, net_.within("coordinator"));
  }
  pid_t work(const std::string& name) { return ByHandTest::work(name, {}, net_.within(name)); }

  Namespaces net_;
};

TEST_F(AcrossNetworksTest, WorkersAreReachedWhereTheCoordinatorIsReachedFrom) {
  const pid_t coordinator = coordinate(), one = work("one"), two = work("two");
  const auto done = end(coordinator, "coordinator");
  EXPECT_EQ(done.code, 0) << done.output << events() << read(output("one")) << read(output("two"));
  EXPECT_EQ(end(one, "one").code, 0) << read(output("one"));
  EXPECT_EQ(end(two, "two").code, 0) << read(output("two"));
  expect_undisturbed();
}

// Each can be dialled for all the coordinator knows, and not by the other: a relay is what is left.
TEST_F(AcrossNetworksTest, WorkersThatAreKeptApartMeetAtTheCoordinator) {
  set_apart(true);
  const pid_t coordinator = coordinate(), one = work("one"), two = work("two");
  const auto done = end(coordinator, "coordinator");
  EXPECT_EQ(done.code, 0) << done.output << events() << read(output("one")) << read(output("two"));
  EXPECT_EQ(end(one, "one").code, 0) << read(output("one"));
  EXPECT_EQ(end(two, "two").code, 0) << read(output("two"));
  expect_undisturbed();
}

TEST_F(AcrossNetworksTest, SaysWhoCannotReachWhomAndGoesOnOnceTheyCan) {
  set_apart(true);
  const pid_t coordinator = coordinate({"--no-relay"}), one = work("one"), two = work("two");
  ASSERT_TRUE(eventually([&] { return events().find("\"unreachable\"") != std::string::npos; }))
      << events() << read(output("coordinator"));
  // Whoever is named, with the address that was tried.
  EXPECT_NE(events().find("tcp://203.0.113."), std::string::npos) << events();
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
