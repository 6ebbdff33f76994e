// Any two processes of a run are killed at the same moment, again and again.

#include <cstdlib>
#include <map>
#include <set>
#include <string>

#include "base/counter_random.h"
#include "membership/by_hand.h"

namespace {

class TwoAtOnceTest : public ByHandTest {
 protected:
  // 50 where somebody has the time: ISTHMUS_ROUNDS=50.
  static std::uint64_t rounds() {
    const char* said = std::getenv("ISTHMUS_ROUNDS");
    return said ? std::strtoull(said, nullptr, 10) : 3;
  }
  void begin_again(const std::string& name) { pids_[name] = name == "coordinator" ? coordinate(run_) : work(name); }
  std::vector<std::string> run_;
  std::map<std::string, pid_t> pids_;
};

TEST_F(TwoAtOnceTest, NothingIsLostOrCountedTwice) {
  const std::uint64_t steps_each = 6, steps = steps_each * (rounds() + 2);
  run_ = {"--set", "pipeline.replicas=2",      "--set", "run.steps=" + std::to_string(steps),
          "--set", "recovery.skip_after_s=600"};
  const std::vector<std::string> names = {"coordinator", "one", "two", "three", "four"};
  for (const auto& name : names) begin_again(name);
  const isthmus::CounterRandom random(rounds(), "who is killed");
  for (std::uint64_t round = 0; round < rounds(); ++round) {
    ASSERT_TRUE(reaches("out", steps_each * (round + 1))) << "round " << round << "\n" << events();
    const auto first = random.below(names.size(), 2 * round);
    const auto second = (first + 1 + random.below(names.size() - 1, 2 * round + 1)) % names.size();
    SCOPED_TRACE("round " + std::to_string(round) + ": " + names[first] + " and " + names[second]);
    for (const auto i : {first, second}) ::kill(pids_[names[i]], SIGKILL);
    for (const auto i : {first, second}) kill_at_once(pids_[names[i]]);
    for (const auto i : {first, second}) begin_again(names[i]);
  }
  const auto done = end(pids_["coordinator"], "coordinator");
  EXPECT_EQ(done.code, 0) << done.output << events();
  for (const auto& name : names)
    if (name != "coordinator") EXPECT_EQ(end(pids_[name], name).code, 0) << read(output(name));
  // Every step is there, once.
  std::set<std::uint64_t> seen;
  std::istringstream lines(read(folder_ + "/out/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto said = nlohmann::json::parse(line);
    if (said.contains("loss")) EXPECT_TRUE(seen.insert(said["step"].get<std::uint64_t>()).second) << line;
  }
  EXPECT_EQ(seen.size(), steps);
  const auto whole = run({"train", folder_ + "/run.toml", "--out", folder_ + "/whole", "--set", "pipeline.replicas=2",
                          "--set", "run.steps=" + std::to_string(steps)});
  ASSERT_EQ(whole.code, 0) << whole.output;
  EXPECT_EQ(summary("out")["weights_hash"], summary("whole")["weights_hash"]);
  EXPECT_FALSE(summary("out")["weights_hash"].empty());
}

}  // namespace
