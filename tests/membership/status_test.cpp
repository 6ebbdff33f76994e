// What `isthmus status` says of a run and of a worker.

#include <signal.h>

#include <string>

#include "app/status_text.h"
#include "membership/by_hand.h"

namespace {

using isthmus::app::run_text;
using isthmus::app::worker_text;
using nlohmann::json;

void expect_narrow(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

TEST(StatusText, IsNarrowAndSaysWhatWaitsAndUntilWhen) {
  const std::string longest(300, 'x');
  const json run = {{"run", "webster"},
                    {"run_id", "0123456789abcdef"},
                    {"phase", "running"},
                    {"committed", 17},
                    {"steps", 200},
                    {"loss", 3.25},
                    {"step_seconds", 0.5},
                    {"tokens_per_second", 1000},
                    {"seconds_left", 91},
                    {"stages",
                     {{{"stage", 0}, {"layers", {0, 4}}, {"wished", 2}, {"members", 1}, {"waits", "1 joins"}},
                      {{"stage", 1},
                       {"layers", {4, 8}},
                       {"wished", 1},
                       {"members", 0},
                       {"waits", "nobody serves it; then steps go without it"},
                       {"seconds_left", 3.25}}}},
                    {"workers",
                     {{{"peer", 1},
                       {"name", "anna"},
                       {"standing", "member"},
                       {"stage", 0},
                       {"version", 16},
                       {"heard_seconds", 0.14},
                       {"does", "waits for " + longest}},
                      {{"peer", 7},
                       {"name", longest},
                       {"standing", "waiting"},
                       {"does", "place 1 of 1: all 3 seats of the run are taken; and more that has no room there"}}}},
                    {"invites",
                     {{{"invite", "9f00aa11"}, {"uses", 3}, {"used", 1}, {"good", true}},
                      {{"invite", "00000000"}, {"uses", 1}, {"used", 1}, {"good", false}}}}};
  const std::string text = run_text(run);
  expect_narrow(text);
  for (const char* said :
       {"webster  step 17 of 200  loss 3.2500", "0.50 s a step  1000 tokens/s  91 s left",
        "stage 0  layers 0:4  1 of 2  1 joins", "nobody serves it; then steps go without it (3.2 s more)",
        "    1 anna             member          16   0.1 s  waits for\n",
        "place 1 of 1: all 3 seats of the run are\n                                                    taken; and more",
        "invite 9f00aa11  1 of 3 used"})
    EXPECT_NE(text.find(said), std::string::npos) << said << "\n" << text;
  EXPECT_EQ(text.find("00000000"), std::string::npos) << text;
  // What is missing is not shown.
  expect_narrow(run_text(json::object()));
  expect_narrow(worker_text(json::object()));
}

class StatusTest : public ByHandTest {};

TEST_F(StatusTest, SaysWhatARunAndAWorkerDoAndWhatTheyWaitFor) {
  const pid_t coordinator = coordinate({"--set", "run.steps=1000"});
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(folder_ + "/out/join"); }));
  const auto status = [&](const std::vector<std::string>& of) {
    std::vector<std::string> arguments = {"status"};
    arguments.insert(arguments.end(), of.begin(), of.end());
    const auto said = run(arguments);
    EXPECT_EQ(said.code, 0) << said.output;
    return said.output;
  };
  const auto state = [&](const std::vector<std::string>& of) {
    std::vector<std::string> with_json = of;
    with_json.push_back("--json");
    return json::parse(status(with_json));
  };
  const std::vector<std::string> of_run = {folder_ + "/out"}, of_one = {"--home", folder_ + "/one"},
                                 of_three = {"--home", folder_ + "/three"};
  EXPECT_EQ(state(of_run)["stages"][1]["waits"], "nobody has a seat at it");
  work("one");
  ASSERT_TRUE(eventually([&] { return state(of_run)["stages"][0]["members"] == 1; })) << state(of_run);
  work("two");
  ASSERT_TRUE(reaches("out", 2)) << read(output("coordinator"));
  work("three");
  ASSERT_TRUE(eventually([&] { return state(of_run)["workers"].size() == 3; })) << state(of_run);
  const json all = state(of_run);
  EXPECT_EQ(all["workers"][0]["standing"], "member") << all;
  EXPECT_EQ(all["workers"][2]["queue"], json({1, 1})) << all;
  EXPECT_GT(all["step_seconds"], 0.0) << all;
  const std::string shown = status(of_run);
  expect_narrow(shown);
  EXPECT_NE(shown.find("place 1 of 1: all 2 seats of the run are taken"), std::string::npos) << shown;
  // A worker knows it, too, and what it gave.
  ASSERT_TRUE(eventually([&] { return state(of_one)["steps_given"] > 0; })) << state(of_one);
  EXPECT_EQ(state(of_one)["state"], "serving");
  EXPECT_NE(status(of_one).find("serving stage 0 as replica 0, for "), std::string::npos) << status(of_one);
  ASSERT_TRUE(eventually([&] {
    return state(of_three)["does"].dump().find("a seat: place 1 of 1") != std::string::npos;
  })) << state(of_three);
  EXPECT_EQ(state(of_three)["state"], "waiting");
  // Somebody who is not there any more, and for how long its seat is kept.
  kill_at_once(started_[2]);
  ASSERT_TRUE(eventually([&] { return state(of_run)["workers"][1].value("standing", "") == "away"; })) << state(of_run);
  EXPECT_GT(state(of_run)["workers"][1]["seconds_left"], 0.0) << state(of_run);
  EXPECT_NE(state(of_run)["stages"][1]["waits"].dump().find("nobody serves it"), std::string::npos) << state(of_run);

  ::kill(coordinator, SIGTERM);
  EXPECT_EQ(end(coordinator, "coordinator").code, 130);
  const auto refused = [&](const std::vector<std::string>& of, const std::string& why) {
    std::vector<std::string> arguments = {"status"};
    arguments.insert(arguments.end(), of.begin(), of.end());
    const auto said = run(arguments);
    EXPECT_EQ(said.code, 1) << said.output;
    EXPECT_NE(said.output.find(why), std::string::npos) << said.output;
    EXPECT_EQ(std::count(said.output.begin(), said.output.end(), '\n'), 1) << said.output;
  };
  refused(of_run, "no coordinator serves " + folder_ + "/out at this moment; it has come to step ");
  refused({folder_ + "/nowhere"}, "there is no run in " + folder_ + "/nowhere");
  refused({"--home", folder_ + "/nowhere"}, "there is no worker in " + folder_ + "/nowhere");
  refused({"--home", folder_ + "/two"}, "no worker serves " + folder_ + "/two at this moment");
}

}  // namespace
