// Workers at home: behind routers that let nobody in, with one string and nothing else.

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "membership/by_hand.h"
#include "membership/namespaces.h"

namespace {

// So that a run is longer than what happens to it.
constexpr const char* kLonger = "run.steps=30";

class HomesTest : public ByHandTest {
 protected:
  void SetUp() override {
    ByHandTest::SetUp();
    if (!net_.missing().empty()) GTEST_SKIP() << net_.missing();
    net_.add_machine("coordinator", 1);
  }
  pid_t coordinate(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"--listen", listen_, "--port", "7000"});
    return ByHandTest::coordinate(more, net_.within("coordinator"));
  }
  // What an owner sends to a friend.
  std::string invite(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"invite", folder_ + "/out", "--uses", "0", "--trusted"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto printed = run(arguments);
    EXPECT_EQ(printed.code, 0) << printed.output;
    return printed.output.substr(printed.output.rfind("isthmus1"));
  }
  pid_t join(const std::string& name, const std::string& string, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {
        "join", string.substr(0, string.find('\n')), "--home", folder_ + "/home-" + name, "--patience", "90"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return begin(name, arguments, net_.within(name));
  }
  // As of a run of so many steps that nothing befalls.
  void expect_weights_of_a_long_run() {
    const std::string whole = made_once("long-run-of-homes", [&](const std::string& folder) {
      return run({"train", folder_ + "/run.toml", "--out", folder + "/run", "--set", kLonger}).code == 0;
    });
    ASSERT_FALSE(whole.empty());
    const auto expected = nlohmann::json::parse(read(whole + "/run/summary.json"));
    EXPECT_EQ(summary("out")["weights_hash"], expected["weights_hash"]);
    EXPECT_FALSE(summary("out")["weights_hash"].empty());
  }
  bool serves() {
    return eventually([&] { return std::filesystem::exists(folder_ + "/out/join"); });
  }
  void expect_good_end(pid_t coordinator, const std::vector<std::pair<std::string, pid_t>>& workers) {
    const auto done = end(coordinator, "coordinator");
    EXPECT_EQ(done.code, 0) << done.output << events();
    for (const auto& [name, pid] : workers) EXPECT_EQ(end(pid, name).code, 0) << name << "\n" << read(output(name));
  }

  // Two friends, each behind a router, at work for a coordinator.
  void begin_at_two_homes(const std::vector<std::string>& coordinators = {}) {
    net_.add_home("anna", 11);
    net_.add_home("ben", 12);
    coordinator_ = coordinate(coordinators);
    ASSERT_TRUE(serves()) << read(output("coordinator"));
    const std::string string = invite();
    anna_ = join("anna", string);
    ben_ = join("ben", string);
  }
  // … in the midst of a long run.
  void train_at_two_homes(std::vector<std::string> coordinators = {}) {
    coordinators.insert(coordinators.end(), {"--set", kLonger});
    begin_at_two_homes(coordinators);
    if (HasFatalFailure()) return;
    ASSERT_TRUE(reaches("out", 5)) << read(output("coordinator")) << read(output("anna")) << read(output("ben"));
  }
  void expect_good_end_of_two() { expect_good_end(coordinator_, {{"anna", anna_}, {"ben", ben_}}); }

  std::string listen_ = "203.0.113.1";
  pid_t coordinator_ = -1, anna_ = -1, ben_ = -1;
  Namespaces net_;
};

TEST_F(HomesTest, NeighboursBehindTwoRoutersMeetAtTheCoordinator) {
  begin_at_two_homes();
  if (HasFatalFailure()) return;
  expect_good_end_of_two();
  expect_undisturbed();
}

TEST_F(HomesTest, TwoMachinesOfOneHomeTalkToEachOtherAtHome) {
  net_.add_home("anna", 11);
  net_.add_guest("annas-laptop", "anna", 3);
  const pid_t coordinator = coordinate({"--no-relay"});
  ASSERT_TRUE(serves()) << read(output("coordinator"));
  const std::string string = invite();
  const pid_t anna = join("anna", string), laptop = join("annas-laptop", string);
  expect_good_end(coordinator, {{"anna", anna}, {"annas-laptop", laptop}});
  expect_undisturbed();
}

// The earlier one dials, for only the later one can be dialled.
TEST_F(HomesTest, OneThatCanBeDialledNeedsNoRelay) {
  net_.add_home("anna", 11);
  net_.add_machine("server", 20);
  const pid_t coordinator = coordinate({"--no-relay"});
  ASSERT_TRUE(serves()) << read(output("coordinator"));
  const pid_t anna = join("anna", invite({"--stage", "0"})), server = join("server", invite({"--stage", "1"}));
  expect_good_end(coordinator, {{"anna", anna}, {"server", server}});
  expect_undisturbed();
}

// Nobody but the coordinator, which it dials itself, can know where it is now.
TEST_F(HomesTest, OneThatCanBeDialledIsFoundAtItsNextAddress) {
  net_.add_home("anna", 11);
  net_.add_machine("server", 20);
  const pid_t coordinator = coordinate({"--no-relay", "--set", kLonger});
  ASSERT_TRUE(serves()) << read(output("coordinator"));
  const pid_t anna = join("anna", invite({"--stage", "0"})), server = join("server", invite({"--stage", "1"}));
  ASSERT_TRUE(reaches("out", 5)) << read(output("coordinator")) << read(output("anna")) << read(output("server"));
  net_.renumber("server", 120);
  expect_good_end(coordinator, {{"anna", anna}, {"server", server}});
  EXPECT_EQ(events().find("\"expelled\""), std::string::npos) << events();
  EXPECT_NE(events().find("it is at 203.0.113.120 now"), std::string::npos) << events();
  expect_weights_of_a_long_run();
}

TEST_F(HomesTest, ARelayThatIsKilledUnderLoadCostsNothingButTime) {
  net_.add_machine("relay", 30);
  const auto relay = [&] {
    return begin("relay", {"relay", "--listen", "203.0.113.30:7010", "--home", folder_ + "/relay"},
                 net_.within("relay"));
  };
  pid_t runs = relay();
  ASSERT_TRUE(eventually([&] { return read(output("relay")).find('\n') != std::string::npos; }))
      << read(output("relay"));
  const std::string said = read(output("relay")), name = said.substr(said.find("isthmus-relay1"));
  train_at_two_homes({"--no-relay", "--relay", name.substr(0, name.find('\n'))});
  if (HasFatalFailure()) return;
  kill_at_once(runs);
  runs = relay();
  expect_good_end_of_two();
  expect_weights_of_a_long_run();
}

TEST_F(HomesTest, AHomeThatLosesItsNetworkComesBack) {
  train_at_two_homes({"--set", "recovery.silence_s=2"});
  if (HasFatalFailure()) return;
  net_.plug("ben", false);
  ASSERT_TRUE(eventually([&] { return events().find("\"expelled\"") != std::string::npos; })) << events();
  net_.plug("ben", true);
  expect_good_end_of_two();
  expect_weights_of_a_long_run();
}

TEST_F(HomesTest, AHomeWhoseAddressChangesGoesOn) {
  train_at_two_homes();
  if (HasFatalFailure()) return;
  net_.renumber("anna", 111);
  expect_good_end_of_two();
  expect_weights_of_a_long_run();
}

TEST_F(HomesTest, NeighboursBehindTwoRoutersMeetOverIpv6) {
  listen_ = "2001:db8::1";
  begin_at_two_homes();
  if (HasFatalFailure()) return;
  expect_good_end_of_two();
  expect_undisturbed();
}

// Nobody says good-bye: its connections are half open until somebody notices.
TEST_F(HomesTest, ACoordinatorWhoseHostRestartsFindsItsWorkersWaiting) {
  train_at_two_homes();
  if (HasFatalFailure()) return;
  net_.plug("coordinator", false);
  kill_at_once(coordinator_);
  net_.plug("coordinator", true);
  coordinator_ = coordinate({"--set", kLonger});
  expect_good_end_of_two();
  expect_weights_of_a_long_run();
}

class OpeningHomesTest : public HomesTest, public ::testing::WithParamInterface<Namespaces::Asking> {};

// There is no relay, so they get nowhere without it.
TEST_P(OpeningHomesTest, ARouterThatIsAskedLetsNeighboursIn) {
  net_.add_home("anna", 11);
  net_.add_home("ben", 12);
  if (!net_.open_on_request("ben", GetParam(), folder_)) GTEST_SKIP() << "needs miniupnpd";
  // Whoever asks before it listens is not answered.
  const std::string listens = GetParam() == Namespaces::Asking::kUpnp ? "HTTP listening" : "Listening for NAT-PMP";
  ASSERT_TRUE(eventually([&] { return read(folder_ + "/ben-router.log").find(listens) != std::string::npos; }))
      << read(folder_ + "/ben-router.log");
  const pid_t coordinator = coordinate({"--no-relay", "--set", kLonger});
  ASSERT_TRUE(serves()) << read(output("coordinator"));
  const pid_t anna = join("anna", invite({"--stage", "0"})), ben = join("ben", invite({"--stage", "1"}));
  ASSERT_TRUE(reaches("out", 2)) << read(output("coordinator")) << read(output("anna")) << read(output("ben"));
  EXPECT_EQ(net_.open_ports("ben"), 2);
  const auto said = run({"status", folder_ + "/home-ben"});
  EXPECT_NE(said.output.find(GetParam() == Namespaces::Asking::kUpnp ? "through (UPnP)" : "through (NAT-PMP)"),
            std::string::npos)
      << said.output;
  expect_good_end(coordinator, {{"anna", anna}, {"ben", ben}});
  EXPECT_EQ(net_.open_ports("ben"), 0) << "they are given back";
  expect_weights_of_a_long_run();
}

INSTANTIATE_TEST_SUITE_P(Asking, OpeningHomesTest,
                         ::testing::Values(Namespaces::Asking::kNatPmp, Namespaces::Asking::kUpnp),
                         [](const auto& p) { return p.param == Namespaces::Asking::kUpnp ? "Upnp" : "NatPmp"; });

}  // namespace
