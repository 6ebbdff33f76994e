// Those that come back while something else breaks, as real processes: whatever a joiner was given in the meantime, it
// ends with the weights of its stage.

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "app/command_line_test.h"

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class JoiningTest : public CommandLineTest, public ::testing::WithParamInterface<const char*> {
 protected:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  // What a joiner says of the snapshot that it fetches.
  struct Fetching {
    int here = 0, all = 0;
    std::vector<int> givers, gone;
  };

  static bool is(const char* mode) { return std::string(GetParam()) == mode; }
  static bool is_exact() { return is("exact"); }

  // The run file with so many replicas of its two stages. No checkpoints: whoever comes back has nothing, and what its
  // siblings hold has to come over the link.
  void write_run(int first, int second) const {
    std::string text = "[pipeline]\nthreads = 1\n";
    text += "[[pipeline.stage]]\nlayers = \"0:2\"\nreplicas = " + std::to_string(first) + "\n";
    text += "[[pipeline.stage]]\nlayers = \"2:4\"\nreplicas = " + std::to_string(second) + "\n";
    end_run_file(text + "[checkpoint]\nevery = 0\n");
  }
  std::vector<std::string> train(const std::string& out, const std::vector<std::string>& settings) const {
    std::vector<std::string> arguments = {"train", folder_ + "/run.toml", "--out", folder_ + "/" + out};
    // Which steps such a small model takes for bad is chance where replicas step on their own.
    arguments.insert(arguments.end(), {"--set", "train.spike_sigma=0"});
    for (const auto& set : settings) arguments.insert(arguments.end(), {"--set", set});
    return arguments;
  }
  // With the replicas agreeing as the parameter says.
  std::vector<std::string> settings(std::vector<std::string> more) const {
    const std::string mode = GetParam();
    more.push_back("sync.mode=" + mode);
    if (is_exact()) return more;
    more.insert(more.end(), {"run.deterministic=false", std::string("sync.every=") + (mode == "diloco" ? "4" : "1")});
    if (mode == "slices") more.push_back("sync.share=0.8");
    return more;
  }
  json summary(const std::string& out) const { return json::parse(read(folder_ + "/" + out + "/summary.json")); }
  std::vector<json> events(const std::string& out) const {
    std::istringstream lines(read(folder_ + "/" + out + "/events.jsonl"));
    std::vector<json> all;
    for (std::string line; std::getline(lines, line) && !lines.eof();) all.push_back(json::parse(line));
    return all;
  }
  // The first of these events from `from` on, of this kind and this worker, for which `fits` holds.
  template <class Fits>
  static std::size_t find(const std::vector<json>& all, std::size_t from, const std::string& event, int peer,
                          Fits&& fits) {
    for (std::size_t i = from; i < all.size(); ++i)
      if (all[i]["event"] == event && all[i]["peer"] == peer && fits(all[i])) return i;
    return kNone;
  }
  static std::size_t find(const std::vector<json>& all, std::size_t from, const std::string& event, int peer) {
    return find(all, from, event, peer, [](const json&) { return true; });
  }
  static Fetching fetching(const json& event) {
    const std::string text = event["reason"];
    Fetching found;
    std::smatch match;
    if (std::regex_search(text, match, std::regex("(\\d+) of (\\d+) pieces here"))) {
      found.here = std::stoi(match[1]);
      found.all = std::stoi(match[2]);
    }
    const std::regex giver("(\\d+) of worker (\\d+)( \\(gone\\))?");
    for (std::sregex_iterator at(text.begin(), text.end(), giver), end; at != end; ++at) {
      found.givers.push_back(std::stoi((*at)[2]));
      if ((*at)[3].matched) found.gone.push_back(std::stoi((*at)[2]));
    }
    return found;
  }
  // All at once: looked up first.
  void kill_workers(const std::string& out, const std::vector<int>& peers) const {
    std::vector<pid_t> pids;
    for (const int peer : peers) pids.push_back(worker(out, peer));
    for (const pid_t pid : pids) {
      ASSERT_GT(pid, 0);
      ::kill(pid, SIGKILL);
    }
  }
  // `hurt` does its harm while the run goes on. All replicas of a stage have to end with equal weights, or the run does
  // not end well, in exact mode with those of a run of one replica each that nothing happened to. What happened,
  // commits left out.
  std::vector<json> disturbed(int first, int second, const std::vector<std::string>& same,
                              const std::vector<std::string>& links, const std::function<void()>& hurt) const {
    if (is_exact()) {
      auto alone = same;
      alone.insert(alone.end(), {"pipeline.stages=1", "train.spike_sigma=0"});
      whole_run(same.at(0) + "-" + same.at(1), alone);
    }
    write_run(first, second);
    auto all = same;
    all.insert(all.end(), links.begin(), links.end());
    const std::string output = folder_ + "/hurt.txt";
    const pid_t parent = start(train("hurt", settings(all)), output);
    hurt();
    if (HasFatalFailure()) ::kill(parent, SIGINT);
    const auto done = finish(parent, output);
    EXPECT_EQ(done.code, 0) << done.output;
    if (done.code == 0 && is_exact()) {
      EXPECT_EQ(summary("hurt")["weights_hash"], summary("whole")["weights_hash"]);
    }
    auto happened = events("hurt");
    std::erase_if(happened, [](const json& event) { return event["event"] == "committed"; });
    for (const auto& event : happened)
      for (const std::string bad : {"rolled back", "fault", "warning"}) EXPECT_NE(event["event"], bad) << event;
    return happened;
  }
  static std::string text(const std::vector<json>& all) {
    std::string lines;
    for (const auto& event : all) lines += event.dump() + "\n";
    return lines;
  }
  // Where its second life begins.
  static std::size_t killed(const std::vector<json>& all, int peer) {
    return std::min(find(all, 0, "expelled", peer), all.size());
  }
  // Waits until so many steps are committed and every worker is a member.
  bool is_complete(const std::string& out, std::size_t steps, std::ptrdiff_t workers) const {
    return reaches(out, steps) && eventually([&] {
             return std::ranges::count(events(out), "admitted",
                                       [](const json& e) { return e["event"].get<std::string>(); }) >= workers;
           });
  }
  // Half a second's or a second's worth of weights for each joiner.
  static std::vector<std::string> small() {
    return {is_exact() ? "run.steps=30" : "run.steps=58", is_exact() ? "model.hidden=64" : "model.hidden=128"};
  }
  // Slow, so that the steps outlast the start of a process wherever this runs.
  static std::vector<std::string> small_link() {
    return {"link.latency_ms=30", std::string("link.bandwidth_mbps=") + (is_exact() ? "80" : "40")};
  }
  // Both were killed: whoever is back first is stopped soon after its first word, until the other one is there, too.
  void hold_the_first(const std::string& out, const std::vector<int>& peers) const {
    std::vector<int> here;
    const auto look = [&] {
      const auto so_far = events(out);
      here.clear();
      for (const int peer : peers)
        if (find(so_far, killed(so_far, peer), "joining", peer) != kNone) here.push_back(peer);
      return here.size();
    };
    ASSERT_TRUE(eventually([&] { return look() > 0; }));
    if (here.size() == peers.size()) return;
    const pid_t first = worker(out, here[0]);
    ASSERT_GT(first, 0);
    ::kill(first, SIGSTOP);
    EXPECT_TRUE(eventually([&] { return look() == peers.size(); }));
    ::kill(first, SIGCONT);
  }
  // Both were on their way at the same time, and both got in.
  static void expect_together(const std::vector<json>& all, int one, int other) {
    std::size_t last_begins = 0, first_ends = kNone;
    for (const int peer : {one, other}) {
      const std::size_t begins = find(all, killed(all, peer), "joining", peer);
      ASSERT_NE(begins, kNone) << text(all);
      const std::size_t ends = find(all, begins, "admitted", peer);
      EXPECT_NE(ends, kNone) << "worker " << peer << " never got in\n" << text(all);
      last_begins = std::max(last_begins, begins);
      first_ends = std::min(first_ends, ends);
    }
    EXPECT_LT(last_begins, first_ends) << text(all);
  }
};

// A worker comes back, and as soon as it has pieces of the stage's weights from one sibling, that one is killed.
TEST_P(JoiningTest, FinishesFromTheOthersWhenADonorIsKilledInMidTransfer) {
  // Where replicas step on their own, it is away until what they told each other is more than the weights; all of it
  // may still be kept.
  struct Case {
    int steps, killed;
    const char* link;
  };
  const Case of = is_exact() ? Case{18, 3, "60"} : is("diloco") ? Case{58, 24, "40"} : Case{44, 24, "40"};
  const int joiner = 3;
  int donor = 0;
  const auto all = disturbed(1, 4, {"run.steps=" + std::to_string(of.steps), "model.hidden=128"},
                             {"link.latency_ms=20", std::string("link.bandwidth_mbps=") + of.link}, [&] {
                               ASSERT_TRUE(is_complete("hurt", static_cast<std::size_t>(of.killed), 5));
                               // Looked up before: the transfer is short.
                               std::map<int, pid_t> donors;
                               for (const int peer : {2, 4, 5}) donors[peer] = worker("hurt", peer);
                               kill_workers("hurt", {joiner});
                               ASSERT_TRUE(eventually([&] {
                                 const auto so_far = events("hurt");
                                 const std::size_t at = find(so_far, killed(so_far, joiner), "fetching", joiner);
                                 if (at != kNone) donor = fetching(so_far[at]).givers.at(0);
                                 return at != kNone;
                               }));
                               ASSERT_GT(donors[donor], 0);
                               ::kill(donors[donor], SIGKILL);
                             });
  // The joiner itself says that it lost a donor before it had everything, …
  const std::size_t lost = find(all, killed(all, joiner), "fetching", joiner, [&](const json& event) {
    const auto so_far = fetching(event);
    return std::ranges::find(so_far.gone, donor) != so_far.gone.end() && so_far.here < so_far.all;
  });
  ASSERT_NE(lost, kNone) << text(all);
  // … and got it from the others, before it was let in.
  const std::size_t whole = find(all, lost, "fetching", joiner, [&](const json& event) {
    const auto so_far = fetching(event);
    return so_far.here == so_far.all && so_far.givers.size() > so_far.gone.size();
  });
  ASSERT_NE(whole, kNone) << text(all);
  const std::size_t admitted = find(all, whole, "admitted", joiner);
  EXPECT_NE(admitted, kNone) << text(all);
  EXPECT_EQ(find(all, killed(all, joiner), "admitted", joiner), admitted) << text(all);
  EXPECT_NE(find(all, lost, "admitted", donor), kNone) << "the donor did not come back\n" << text(all);
}

INSTANTIATE_TEST_SUITE_P(Modes, JoiningTest, ::testing::Values("exact", "diloco", "slices"),
                         [](const auto& p) { return p.param; });

// Who steps on its own joins in the same way whatever it tells the others, so one of those modes stands for all: the
// one that tells so little that a joiner may be told all of it instead of the weights.
class TogetherTest : public JoiningTest {};

// Two of three replicas are killed at once: both have only the third to fetch from.
TEST_P(TogetherTest, LetsTwoReplicasOfAStageInThatComeBackTogether) {
  const auto all = disturbed(1, 3, small(), small_link(), [&] {
    ASSERT_TRUE(is_complete("hurt", is_exact() ? 4 : 37, 4));
    kill_workers("hurt", {2, 4});
    hold_the_first("hurt", {2, 4});
  });
  expect_together(all, 2, 4);
}

TEST_P(TogetherTest, LetsReplicasOfTwoStagesInThatComeBackTogether) {
  const auto all = disturbed(2, 2, small(), small_link(), [&] {
    ASSERT_TRUE(is_complete("hurt", is_exact() ? 4 : 37, 4));
    kill_workers("hurt", {1, 4});
    hold_the_first("hurt", {1, 4});
  });
  expect_together(all, 1, 4);
}

INSTANTIATE_TEST_SUITE_P(Modes, TogetherTest, ::testing::Values("exact", "sparseloco"),
                         [](const auto& p) { return p.param; });

}  // namespace
