// Coordinator and workers started one by one, as on many machines: nobody is the parent of anybody.

#include "membership/by_hand.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <regex>
#include <string>

#include "app/invite.h"

namespace {

using ::testing::HasSubstr;

TEST_F(ByHandTest, TwoWorkersTrainAndOneThatIsKilledComesBack) {
  // Each with limits of its own.
  std::ofstream(folder_ + "/one.toml") << "[pipeline]\nactivation_mb = 64\n[recovery]\njournal_mb = 8\n";
  std::ofstream(folder_ + "/two.toml") << "[pipeline]\nthreads = 1\n[recovery]\njournal_mb = 16\n";
  const auto work = [&](const std::string& name) {
    return ByHandTest::work(name, {"--host", folder_ + "/" + name + ".toml"});
  };
  const pid_t coordinator = coordinate();
  const pid_t one = work("one"), first_life = work("two");
  ASSERT_TRUE(reaches("out", 4)) << read(output("coordinator")) << read(output("one")) << read(output("two"));
  kill_at_once(first_life);
  const pid_t second_life = work("two");
  const auto done = end(coordinator, "coordinator");
  EXPECT_EQ(done.code, 0) << done.output << events();
  EXPECT_EQ(end(one, "one").code, 0) << read(output("one"));
  EXPECT_EQ(end(second_life, "two").code, 0) << read(output("two"));
  expect_undisturbed();
  // It came back as who it was.
  const std::string log = read(folder_ + "/out/coordinator.log");
  std::size_t enrolled = 0;
  for (std::size_t at = 0; (at = log.find("\"record\":\"enrol\"", at)) != std::string::npos; ++at) ++enrolled;
  EXPECT_EQ(enrolled, 2u);
  EXPECT_EQ(run({"log", "verify", folder_ + "/out"}).code, 0);
  // A line that was changed is found, and named.
  const std::string changed =
      std::regex_replace(log, std::regex("\"replica\":0"), "\"replica\":1", std::regex_constants::format_first_only);
  ASSERT_NE(changed, log);
  std::ofstream(folder_ + "/out/coordinator.log", std::ios::binary) << changed;
  const auto line = 1 + std::count(log.begin(), std::ranges::mismatch(log, changed).in1, '\n');
  const auto verified = run({"log", "verify", folder_ + "/out"});
  EXPECT_EQ(verified.code, 1) << verified.output;
  EXPECT_NE(verified.output.find("coordinator.log: line " + std::to_string(line) + " "), std::string::npos)
      << verified.output;
  const auto told = nlohmann::json::parse(run({"log", "verify", folder_ + "/out", "--json"}).output);
  EXPECT_EQ(told["line"], line) << told;
}

TEST_F(ByHandTest, ACoordinatorThatIsKilledIsFoundAgainElsewhere) {
  const pid_t first = coordinate();
  const pid_t one = work("one"), two = work("two");
  ASSERT_TRUE(reaches("out", 4)) << read(output("coordinator"));
  const std::string before = read(folder_ + "/out/join");
  kill_at_once(first);
  const pid_t again = coordinate();
  const auto done = end(again, "coordinator");
  EXPECT_EQ(done.code, 0) << done.output << events();
  EXPECT_EQ(end(one, "one").code, 0) << read(output("one"));
  EXPECT_EQ(end(two, "two").code, 0) << read(output("two"));
  EXPECT_NE(read(folder_ + "/out/join"), before);
  expect_undisturbed();
}

// However the coordinator was started, nobody else may take its folder.
TEST_F(ByHandTest, ALiveRunIsLeftAlone) {
  const pid_t first = coordinate();
  work("one"), work("two");
  ASSERT_TRUE(reaches("out", 2)) << read(output("coordinator"));
  kill_at_once(first);
  std::filesystem::remove(output("coordinator"));  // so that what it says is said by the next one
  const pid_t again = coordinate();
  ASSERT_TRUE(eventually([&] { return read(output("coordinator")).find("step ") != std::string::npos; }));
  const auto expect_refused = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin() + 1, {folder_ + "/run.toml", "--out", folder_ + "/out"});
    const auto refused = run(arguments);
    EXPECT_EQ(refused.code, 1);
    EXPECT_NE(refused.output.find("in use"), std::string::npos) << refused.output;
  };
  ::kill(again, SIGSTOP);  // so that the run lives as long as this takes
  const std::string run_file = read(folder_ + "/out/run.toml"), log = read(folder_ + "/out/coordinator.log");
  expect_refused({"train", "--force", "--set", "run.seed=7"});
  expect_refused({"train", "--resume"});
  expect_refused({"coordinator"});
  EXPECT_EQ(read(folder_ + "/out/run.toml"), run_file);
  EXPECT_EQ(read(folder_ + "/out/coordinator.log"), log);
  ::kill(again, SIGCONT);
  EXPECT_EQ(end(again, "coordinator").code, 0);
  expect_undisturbed();
}

// What all must agree on is not a worker's to change.
TEST_F(ByHandTest, AWorkerChangesOnlyItsOwnMachine) {
  for (const char* theirs :
       {"train.learning_rate=5", "run.seed=7", "emulated.forward_ms=3", "pipeline.device=emulated"}) {
    const auto refused = run({"join", folder_ + "/out/join", "--home", folder_ + "/one", "--set", theirs});
    EXPECT_EQ(refused.code, 1) << theirs;
    EXPECT_NE(refused.output.find("comes from the run"), std::string::npos) << refused.output;
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/one"));
}

TEST_F(ByHandTest, SomebodyWhomNobodyInvitedStaysOutsideAndIsCounted) {
  const pid_t coordinator = coordinate();
  ASSERT_TRUE(eventually([&] { return !read(folder_ + "/out/join").empty(); })) << read(output("coordinator"));
  const std::string forged = folder_ + "/forged";
  auto invite = isthmus::app::read_invite_file(folder_ + "/out/join");
  ASSERT_TRUE(invite) << invite.error().message;
  invite->key = isthmus::transport::new_key_pair();
  ASSERT_TRUE(isthmus::app::write_invite_file(forged, *invite));
  const pid_t stranger = begin("stranger", {"join", forged, "--home", folder_ + "/stranger", "--patience", "4"});
  const auto outside = end(stranger, "stranger");
  EXPECT_EQ(outside.code, 1);
  EXPECT_NE(outside.output.find("waits for a coordinator: "), std::string::npos) << outside.output;
  EXPECT_NE(outside.output.find("no coordinator for 4 s"), std::string::npos) << outside.output;
  EXPECT_TRUE(eventually([&] { return events().find("of strangers") != std::string::npos; })) << events();
  EXPECT_EQ(read(folder_ + "/out/coordinator.log").find("\"record\":\"enrol\""), std::string::npos);
  ::kill(coordinator, SIGTERM);
  EXPECT_EQ(end(coordinator, "coordinator").code, 130);
}

// An owner's words to a run that goes on: a string lets in as many as it says, and nobody stays against their will.
TEST_F(ByHandTest, AnOwnerInvitesAndShutsOut) {
  const pid_t coordinator = coordinate();
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(folder_ + "/out/join"); }))
      << read(output("coordinator"));
  const auto owner = [&](std::vector<std::string> words) {
    words.insert(words.begin() + 1, folder_ + "/out");
    const auto said = run(words);
    EXPECT_EQ(said.code, 0) << said.output;
    return said.output;
  };
  const auto invited = [&](std::vector<std::string> how) {
    how.insert(how.begin(), {"invite", "--trusted"});
    how.push_back("--json");
    return nlohmann::json::parse(owner(how))["invite"].get<std::string>();
  };
  const auto join = [&](const std::string& name, const std::string& invite) {
    return begin(name, {"join", invite, "--home", folder_ + "/" + name, "--patience", "60"});
  };
  const auto refused = [&](const std::string& name, const std::string& invite, const std::string& why) {
    const auto done = end(join(name, invite), name);
    EXPECT_EQ(done.code, 1);
    EXPECT_NE(done.output.find(why), std::string::npos) << done.output;
  };
  const std::string one = invited({"--uses", "1"}), more = invited({"--uses", "0", "--expires", "0"});
  const pid_t first = join("one", one);
  ASSERT_TRUE(eventually([&] { return events().find("\"seated\"") != std::string::npos; })) << read(output("one"));
  refused("late", one, "this invite was for one machine");
  const pid_t second = join("two", more);
  ASSERT_TRUE(reaches("out", 2)) << read(output("coordinator")) << read(output("two"));
  owner({"revoke", more});
  refused("later", more, "this invite was withdrawn");
  const auto peers = nlohmann::json::parse(owner({"peers", "--json"}));
  ASSERT_EQ(peers["peers"].size(), 2u) << peers;
  EXPECT_EQ(peers["peers"][0]["standing"], "member") << peers;
  EXPECT_EQ(peers["invites"].size(), 3u) << peers;  // that of OUT/join as well
  EXPECT_NE(owner({"peers"}).find("withdrawn"), std::string::npos);
  // Out at once; its identity may not come back.
  const std::string number = peers["peers"][1]["peer"].dump();
  owner({"revoke", number, "--ban", "--reason", "it lies"});
  const auto banned = end(second, "two");
  EXPECT_EQ(banned.code, 1);
  EXPECT_NE(banned.output.find("banned"), std::string::npos) << banned.output;
  EXPECT_NE(banned.output.find("it lies"), std::string::npos) << banned.output;
  // `join` alone goes on with the run that it joined last.
  kill_at_once(first);
  const pid_t again = begin("one", {"join", "--home", folder_ + "/one", "--patience", "60"});
  const std::size_t steps = read(folder_ + "/out/metrics.jsonl").size();
  join("three", invited({"--stage", "1"}));
  EXPECT_TRUE(eventually([&] { return read(folder_ + "/out/metrics.jsonl").size() > steps; })) << events();
  ::kill(coordinator, SIGTERM);
  EXPECT_EQ(end(coordinator, "coordinator").code, 130);
  EXPECT_EQ(end(again, "one").code, 0) << read(output("one"));
  // Nobody is there to ask any more.
  const auto nobody = run({"peers", folder_ + "/out"});
  EXPECT_EQ(nobody.code, 1);
  EXPECT_NE(nobody.output.find("no coordinator serves"), std::string::npos) << nobody.output;
}

TEST_F(ByHandTest, AnInviteThatIsNoneIsRefusedAtOnce) {
  const std::pair<const char*, const char*> flawed[] = {
      {"isthmus1AAAA", "copy it again"}, {"isthmus9AAAA", "install the version"}, {"", "has joined no run yet"}};
  for (const auto& [text, why] : flawed) {
    std::vector<std::string> arguments = {"join", "--home", folder_ + "/nowhere"};
    if (*text) arguments.emplace_back(text);
    const auto refused = run(arguments);
    EXPECT_EQ(refused.code, 1);
    EXPECT_NE(refused.output.find(why), std::string::npos) << refused.output;
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/nowhere"));
}

TEST_F(ByHandTest, OneHomeIsOneWorker) {
  const pid_t first = work("one");
  ASSERT_TRUE(eventually([&] { return !read(folder_ + "/one/identity.key").empty(); }));
  const pid_t second = begin("second", {"join", folder_ + "/out/join", "--home", folder_ + "/one"});
  const auto refused = end(second, "second");
  EXPECT_EQ(refused.code, 1);
  EXPECT_NE(refused.output.find("in use by another worker"), std::string::npos) << refused.output;
  // It says what it waits for, and ends when the terminal does.
  EXPECT_TRUE(eventually([&] { return read(output("one")).find("waits for a coordinator: ") != std::string::npos; }));
  ::kill(first, SIGHUP);
  EXPECT_EQ(end(first, "one").code, 130);
}

TEST_F(ByHandTest, PortsAndLimitsAreNamed) {
  const auto expect = [&](const Finished& finished, int code, const std::string& what) {
    EXPECT_EQ(finished.code, code);
    EXPECT_NE(finished.output.find(what), std::string::npos) << finished.output;
  };
  expect(run({"coordinator", folder_ + "/run.toml", "--out", folder_ + "/port", "--port", "65535"}), 2,
         "expected a whole number from 0 to 65532: the three ports after it");
  expect(run({"train", folder_ + "/run.toml", "--out", folder_ + "/few"},
             [] {
               const rlimit few{32, 32};
               ::setrlimit(RLIMIT_NOFILE, &few);
             }),
         1, "this run needs 80 open files");
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/few"));
}

TEST_F(ByHandTest, AnInviteMayHoldANameAndSaysWhenThereIsNone) {
  const auto invited = [&] {
    const auto printed = run({"invite", folder_ + "/out", "--trusted", "--uses", "0", "--json"});
    return nlohmann::json::parse(printed.output)["invite"].get<std::string>();
  };
  const auto join = [&](const std::string& name, const std::string& invite, const std::string& patience) {
    return begin(name, {"join", invite, "--home", folder_ + "/" + name, "--patience", patience});
  };
  const pid_t first = coordinate({"--advertise", "nobody.invalid"});
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(folder_ + "/out/admin"); }));
  const auto lost = end(join("lost", invited(), "4"), "lost");
  EXPECT_EQ(lost.code, 1);
  EXPECT_THAT(lost.output, HasSubstr("no address for the name nobody.invalid"));
  kill_at_once(first);
  const pid_t second = coordinate({"--advertise", "localhost"});
  std::string invite;
  ASSERT_TRUE(eventually([&] {
    const auto printed = run({"invite", folder_ + "/out", "--trusted", "--uses", "0"});
    invite = printed.code == 0 ? printed.output.substr(printed.output.rfind("isthmus1")) : "";
    return !invite.empty();
  }));
  invite = invite.substr(0, invite.find('\n'));
  const pid_t one = join("one", invite, "60"), two = join("two", invite, "60");
  const auto done = end(second, "coordinator");
  EXPECT_EQ(done.code, 0) << done.output << events();
  EXPECT_EQ(end(one, "one").code, 0) << read(output("one"));
  EXPECT_EQ(end(two, "two").code, 0) << read(output("two"));
}

TEST_F(ByHandTest, DoctorSaysWhetherTheCoordinatorAnswersAndUsesNoInviteUp) {
  const pid_t coordinator = coordinate();
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(folder_ + "/out/admin"); }));
  const auto about_coordinator = [&] {
    const auto said = run({"doctor", folder_ + "/out/join", "--home", folder_ + "/one", "--json"});
    const auto found = nlohmann::json::parse(said.output);
    for (const auto& finding : found["findings"])
      if (finding["about"] == "coordinator") return finding["kind"].get<std::string>();
    return said.output;
  };
  EXPECT_EQ(about_coordinator(), "good");
  const auto peers = nlohmann::json::parse(run({"peers", folder_ + "/out", "--json"}).output);
  EXPECT_TRUE(peers["peers"].empty());
  kill_at_once(coordinator);
  EXPECT_EQ(about_coordinator(), "bad");
}

// Nothing is begun, and both sides say why; the seat is free for somebody else.
TEST_F(ByHandTest, AStageThatDoesNotFitIsNotBegun) {
  CommandLineTest::SetUp();
  const pid_t coordinator = coordinate({"--set", "model.hidden=8192", "--set", "model.layers=64", "--set",
                                        "model.heads=64", "--set", "boundary.factored_layers=63"});
  const auto done = end(work("one"), "one");
  EXPECT_EQ(done.code, 1);
  EXPECT_THAT(done.output, HasSubstr("GiB of memory, and"));
  ASSERT_TRUE(eventually([&] { return events().find("GiB of memory, and") != std::string::npos; })) << events();
  EXPECT_THAT(events(), HasSubstr("\"left\""));
  ::kill(coordinator, SIGINT);
  EXPECT_EQ(end(coordinator, "coordinator").code, 130);
}

TEST_F(ByHandTest, AnAddressThatNobodyCanDialIsRefused) {
  const auto refusal = [&](std::vector<std::string> how) {
    how.insert(how.begin(), {"coordinator", folder_ + "/run.toml", "--out", folder_ + "/any"});
    const auto refused = run(how);
    EXPECT_NE(refused.code, 0) << how.back();
    EXPECT_FALSE(std::filesystem::exists(folder_ + "/any"));
    return refused.output;
  };
  EXPECT_THAT(refusal({"--listen", "0"}), HasSubstr("expected one of this machine's"));
  for (const char* all : {"0.0.0.0", "[::]"})
    EXPECT_THAT(refusal({"--listen", all}), HasSubstr("add --advertise NAME:PORT"));
  for (const char* bad : {"", "a b", "home:0", "home:65535", "0.0.0.0", "::1"})
    EXPECT_THAT(refusal({"--listen", "0.0.0.0", "--advertise", bad}), HasSubstr("expected NAME or NAME:PORT")) << bad;
  EXPECT_THAT(refusal({"--advertise", "a", "--advertise", "b", "--advertise", "c", "--advertise", "d"}),
              HasSubstr("at most 3"));
  EXPECT_THAT(refusal({"--relay", "isthmus-relay1 203.0.113.9:7010 12"}), HasSubstr("what `isthmus relay` printed"));
  EXPECT_THAT(refusal({"--relay", folder_ + "/none"}), HasSubstr(folder_ + "/none"));
}

TEST_F(ByHandTest, AnInterruptionInTheFirstMomentLeavesARunThatGoesOn) {
  const auto interrupted = [&](int signal, const std::vector<std::string>& how, const std::function<bool()>& moment) {
    std::vector<std::string> arguments = {"train", folder_ + "/run.toml", "--out", folder_ + "/out"};
    arguments.insert(arguments.end(), how.begin(), how.end());
    const pid_t parent = begin("train", arguments);
    ASSERT_TRUE(eventually(moment, 100));
    ::kill(parent, signal);
    const auto stopped = end(parent, "train");
    EXPECT_EQ(stopped.code, 130) << stopped.output;
  };
  interrupted(SIGHUP, {}, [&] { return std::filesystem::exists(folder_ + "/out/run.toml"); });
  interrupted(SIGINT, {"--resume"}, [&] { return process("out", "isthmus coordinator") > 0; });
  interrupted(SIGINT, {"--resume"}, [&] { return process("out", " --name worker-2 ") > 0; });
  const auto resumed = run({"train", folder_ + "/run.toml", "--out", folder_ + "/out", "--resume"});
  EXPECT_EQ(resumed.code, 0) << resumed.output;
  expect_undisturbed();
}

// Signals interrupt no call of a library, however many come.
TEST_F(ByHandTest, AHailOfSignalsEndsARunInOrder) {
  const pid_t coordinator = coordinate();
  work("one"), work("two");
  ASSERT_TRUE(reaches("out", 2)) << read(output("coordinator"));
  int status = 0;
  EXPECT_TRUE(eventually(
      [&] {
        if (::waitpid(coordinator, &status, WNOHANG) == coordinator) return true;
        for (int i = 0; i < 100; ++i) ::kill(coordinator, SIGTERM);
        return false;
      },
      1));
  std::erase(started_, coordinator);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 130) << read(output("coordinator"));
}

TEST_F(ByHandTest, WithoutItsParentARunEndsInOrder) {
  const pid_t parent = begin("train", {"train", folder_ + "/run.toml", "--out", folder_ + "/out"});
  ASSERT_TRUE(reaches("out", 4)) << read(output("train"));
  kill_at_once(parent);
  EXPECT_TRUE(eventually([&] { return processes("out").empty(); }));
  EXPECT_NE(events().find("\"stopping\""), std::string::npos) << events();
  const auto resumed = run({"train", folder_ + "/run.toml", "--out", folder_ + "/out", "--resume"});
  EXPECT_EQ(resumed.code, 0) << resumed.output;
  expect_undisturbed();
}

}  // namespace
