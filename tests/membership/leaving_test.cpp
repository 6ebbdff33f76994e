// Workers that are asked to leave: nobody waits for them, and nothing they did is lost.

#include <signal.h>

#include <string>

#include "membership/by_hand.h"

namespace {

class LeavingTest : public ByHandTest {
 protected:
  // Two stages of two replicas each; there is a middle of a step.
  const std::vector<std::string> kRun = {"--set", "pipeline.replicas=2", "--set", "run.steps=30"};
  void begin_run(const std::vector<std::string>& names) {
    coordinator_ = coordinate(kRun);
    for (const auto& name : names) pids_[name] = work(name);
    ASSERT_TRUE(reaches("out", 3)) << read(output("coordinator"));
  }
  // How often the event happened, of that worker if it is about one.
  std::size_t count(const std::string& event, const std::string& name = "") const {
    std::size_t found = 0;
    int peer = -1;
    std::istringstream lines(events());
    for (std::string line; std::getline(lines, line);) {
      const auto e = nlohmann::json::parse(line, nullptr, false);
      if (!e.is_object()) continue;
      if (e["event"] == "enrolled" && e["reason"] == name) peer = e["peer"];
      if (e["event"] == event && (name.empty() || e["peer"] == peer)) ++found;
    }
    return found;
  }
  bool says(const std::string& name, const std::string& what) const {
    return read(output(name)).find(what) != std::string::npos;
  }
  // Asks the worker with a signal; it has to end with this code.
  void leave(const std::string& name, int signal, int code, const std::string& words) {
    ::kill(pids_[name], signal);
    const auto left = end(pids_[name], name);
    EXPECT_EQ(left.code, code) << left.output;
    EXPECT_NE(left.output.find(words), std::string::npos) << left.output;
    pids_.erase(name);
  }
  // All that are still there end with the run, which ends with the weights of one that nobody left.
  void expect_good_end() {
    const auto done = end(coordinator_, "coordinator");
    EXPECT_EQ(done.code, 0) << done.output << events();
    for (const auto& [name, pid] : pids_) EXPECT_EQ(end(pid, name).code, 0) << read(output(name));
    for (const char* event : {"suspected", "expelled", "rolled back", "skipped", "unreachable", "warning", "fault"})
      EXPECT_EQ(count(event), 0u) << event << "\n" << events();
    const std::string whole = made_once("nobody-leaves", [&](const std::string& folder) {
      std::vector<std::string> train = {"train", folder_ + "/run.toml", "--out", folder + "/run"};
      train.insert(train.end(), kRun.begin(), kRun.end());
      return run(train).code == 0;
    });
    ASSERT_FALSE(whole.empty());
    const auto expected = nlohmann::json::parse(read(whole + "/run/summary.json"));
    EXPECT_EQ(summary("out")["weights_hash"], expected["weights_hash"]);
    EXPECT_FALSE(summary("out")["weights_hash"].empty());
  }
  std::map<std::string, pid_t> pids_;
  pid_t coordinator_ = 0;
};

// In mid-step; the one that waited has the seat before it has gone. The queue waits for nobody either.
TEST_F(LeavingTest, NobodyWaitsForWhoeverLeavesAndItsSeatIsTaken) {
  begin_run({"one", "two", "three", "four"});
  pids_["five"] = work("five");
  pids_["six"] = work("six");
  for (const char* name : {"five", "six"})
    ASSERT_TRUE(eventually([&] { return says(name, "waits for a seat: place "); })) << read(output(name));
  const std::string first = says("five", "place 1 of") ? "five" : "six", second = first == "five" ? "six" : "five";
  leave(second, SIGINT, 0, "has left the queue");
  leave("two", SIGINT, 0, "has left: it gave ");
  EXPECT_EQ(count("left", "two"), 1u) << events();
  EXPECT_EQ(count("seated", first), 1u) << events();
  expect_good_end();
  EXPECT_EQ(count("admitted", first), 1u) << events();
}

TEST_F(LeavingTest, AnotherTerminalAsksForItAndItComesBack) {
  begin_run({"one", "two", "three", "four"});
  const auto left = run({"leave", "--home", folder_ + "/three"});
  EXPECT_EQ(left.code, 0) << left.output;
  EXPECT_NE(left.output.find("it has left: it gave "), std::string::npos) << left.output;
  EXPECT_EQ(end(pids_["three"], "three").code, 0) << read(output("three"));
  EXPECT_TRUE(says("three", "then leaves; Ctrl-C again to go at once")) << read(output("three"));
  const auto nobody = run({"leave", "--home", folder_ + "/three"});
  EXPECT_EQ(nobody.code, 1);
  EXPECT_NE(nobody.output.find("no worker serves"), std::string::npos) << nobody.output;
  pids_["three"] = work("three");
  // Otherwise its stage would be empty without the other, and what was not saved of it would be done again.
  ASSERT_TRUE(eventually([&] { return count("admitted", "three") == 2; })) << events();
  // Asked twice, it goes at once, and says even that.
  ::kill(pids_["four"], SIGSTOP);
  for (const int signal : {SIGINT, SIGTERM}) ::kill(pids_["four"], signal);
  leave("four", SIGCONT, 130, "");
  EXPECT_TRUE(eventually([&] { return count("left", "four") == 1; })) << events();
  expect_good_end();
  EXPECT_EQ(count("admitted", "three"), 2u) << events();
}

// Its weights are on its disk when it comes back.
TEST_F(LeavingTest, TheOnlyOneOfItsStageLeavesAndComesBack) {
  coordinator_ = coordinate({"--set", "run.steps=30"});
  for (const char* name : {"one", "two"}) pids_[name] = work(name);
  ASSERT_TRUE(reaches("out", 3)) << read(output("coordinator"));
  leave("two", SIGTERM, 0, "has left: it gave ");
  pids_["two"] = work("two");
  expect_good_end();
  EXPECT_EQ(count("joining"), 0u) << events();
}

}  // namespace
