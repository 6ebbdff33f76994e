// The demo's model, trained by four homes behind routers that let nobody in, with links of 80 Mb/s down and 20 up.

#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "membership/by_hand.h"
#include "membership/marks.h"
#include "membership/namespaces.h"
#include "membership/process_memory.h"

namespace {

namespace fs = std::filesystem;

class FourHomesTest : public ByHandTest {
 protected:
  void SetUp() override {
    CommandLineTest::SetUp();
    if (!net_.missing().empty()) GTEST_SKIP() << net_.missing();
  }
  // The demo's run, shortened, on this test's text.
  std::vector<std::string> of_the_run(std::vector<std::string> words, const std::string& out) const {
    words.push_back(ISTHMUS_SOURCE_DIR "/configs/webster.toml");
    words.insert(words.end(), {"--out", folder_ + "/" + out});
    for (const std::string& set :
         {std::string("run.steps=4"), std::string("run.deterministic=true"), std::string("train.evaluate_every=3"),
          std::string("train.evaluation_microbatches=1"), std::string("model.context=128"),
          std::string("link.emulate=false"), std::string("checkpoint.every=1"), "data.train=" + folder_ + "/train.bin",
          "data.validation=" + folder_ + "/validation.bin"})
      words.insert(words.end(), {"--set", set});
    return words;
  }
  std::string home(const std::string& name) const { return folder_ + "/home-" + name; }
  // The newest checkpoint's weights; empty: there is none yet.
  std::string newest_weights(const std::string& name) const {
    std::string newest;
    std::error_code gone;  // what it writes, it renames
    for (fs::recursive_directory_iterator file(home(name), gone), end; !gone && file != end; file.increment(gone))
      if (file->path().filename() == "weights.safetensors") newest = std::max(newest, file->path().string());
    return newest;
  }
  // While the coordinator stands still no step is committed, so a worker's memory has what it saved last: unless it has
  // just heard of a commit, which not all of them can have.
  void look_into_memories(pid_t coordinator, const std::map<std::string, pid_t>& workers) {
    ::kill(coordinator, SIGSTOP);
    const bool saved = eventually([&] {
      return std::ranges::all_of(workers, [&](const auto& worker) {
        return fs::path(newest_weights(worker.first)).parent_path().filename().string() >= "step-00000002";
      });
    });
    std::map<std::string, Marks> own, others;
    for (const auto& [name, pid] : workers) {
      ::kill(pid, SIGSTOP);
      write_memory(pid, folder_ + "/memory-" + name);
      for (const auto& [other, of_other] : workers)
        (other == name ? own[name] : others[name]).add_tensors(newest_weights(other), 4096 + 32);
    }
    for (const auto& [name, pid] : workers) ::kill(pid, SIGCONT);
    ::kill(coordinator, SIGCONT);
    ASSERT_TRUE(saved);
    int found = 0;
    for (const auto& [name, pid] : workers) {
      const std::string memory = folder_ + "/memory-" + name;
      EXPECT_GT(others[name].size(), 100u);
      EXPECT_FALSE(others[name].are_in(memory, sizeof(float))) << name << " has weights of another stage";
      found += own[name].are_in(memory, sizeof(float));
      fs::remove(memory);
    }
    EXPECT_GT(found, 0) << "who looks finds what is there";
  }

  Namespaces net_;
};

TEST_F(FourHomesTest, TrainTheSameWeightsAsOneMachine) {
  const auto whole = run(of_the_run({"train"}, "whole"));
  ASSERT_EQ(whole.code, 0) << whole.output;
  net_.add_machine("coordinator", 1);
  const std::vector<std::string> names = {"anna", "ben", "cara", "dan"};
  for (std::size_t i = 0; i < names.size(); ++i) {
    net_.add_home(names[i], 11 + static_cast<int>(i));
    net_.shape(names[i], 80, 20);
  }
  net_.record("coordinator", folder_ + "/seen");
  auto serve = of_the_run({"coordinator"}, "out");
  serve.insert(serve.end(), {"--listen", "203.0.113.1"});
  const pid_t coordinator = begin("coordinator", serve, net_.within("coordinator"));
  ASSERT_TRUE(eventually([&] { return fs::exists(folder_ + "/out/admin"); })) << read(output("coordinator"));
  const auto invited = run({"invite", folder_ + "/out", "--uses", "4", "--trusted"});
  ASSERT_EQ(invited.code, 0) << invited.output;
  const std::string printed = invited.output.substr(invited.output.rfind("isthmus1"));
  const std::string invite = printed.substr(0, printed.find('\n'));
  std::vector<pid_t> workers;
  for (const auto& name : names)
    workers.push_back(
        begin(name, {"join", invite, "--home", folder_ + "/home-" + name, "--patience", "90"}, net_.within(name)));
  ASSERT_TRUE(reaches("out", 2)) << read(output("coordinator"));
  std::map<std::string, pid_t> at_work;
  for (std::size_t i = 0; i < names.size(); ++i) at_work[names[i]] = workers[i];
  look_into_memories(coordinator, at_work);
  const auto done = end(coordinator, "coordinator");
  EXPECT_EQ(done.code, 0) << done.output << events();
  for (std::size_t i = 0; i < names.size(); ++i) EXPECT_EQ(end(workers[i], names[i]).code, 0) << read(output(names[i]));
  EXPECT_EQ(summary("out")["weights_hash"], summary("whole")["weights_hash"]);
  EXPECT_FALSE(summary("out")["weights_hash"].empty());
  // Whoever sees all that passes the coordinator, which is their relay and keeps their vault, sees none of it.
  Marks marks;
  marks.add_file(folder_ + "/text", 1000);
  for (const auto& name : names)
    for (const auto& file : fs::recursive_directory_iterator(folder_ + "/home-" + name)) {
      if (file.path().extension() == ".safetensors") marks.add_tensors(file.path(), 4096 + 32);
      if (file.is_regular_file() && file.path().string().find("/journal/") != std::string::npos)
        marks.add_file(file.path(), 4096 + 32);
    }
  EXPECT_GT(marks.size(), 10'000u);
  EXPECT_GT(fs::file_size(folder_ + "/seen"), 1'000'000u);
  EXPECT_FALSE(marks.are_in(folder_ + "/seen"));
  EXPECT_EQ(marks.holder(folder_ + "/out/vault"), "");
  // Nobody holds another's stage, and the coordinator none at all.
  std::set<std::string> stages;
  for (const auto& name : names)
    for (const auto& stage : fs::directory_iterator(folder_ + "/home-" + name + "/checkpoint"))
      EXPECT_TRUE(stages.insert(stage.path().filename()).second) << stage.path();
  EXPECT_EQ(stages.size(), names.size());
  for (const auto& file : fs::recursive_directory_iterator(folder_ + "/out"))
    EXPECT_NE(file.path().extension(), ".safetensors") << file.path();
}

}  // namespace
