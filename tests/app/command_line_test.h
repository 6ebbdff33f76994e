#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

// The program itself, in a folder of the test's own: shards of a small text and a run file "run.toml" that trains a
// tiny model on them in two stages.
class CommandLineTest : public ::testing::Test {
 protected:
  struct Finished {
    int code = -1;
    std::string output;  // stdout and stderr
  };

  void SetUp() override {
    std::filesystem::create_directories(folder_);
    write_text(0);
    std::ofstream(folder_ + "/run.toml") << R"([run]
name = "test"
steps = 20
deterministic = true
[model]
layers = 4
hidden = 32
heads = 2
context = 32
token_path = "none"
[data]
train = ")" + folder_ + R"(/train.bin"
validation = ")" + folder_ + R"(/validation.bin"
[train]
sequences_per_microbatch = 2
microbatches_per_step = 4
evaluate_every = 10
evaluation_microbatches = 2
optimizer = "adamw"
[boundary]
rank = 8
values = "fp32"
factored_layers = 3
[link]
bandwidth_mbps = 800
latency_ms = 1
emulate = true
[pipeline]
layout = "auto"
stages = 2
[checkpoint]
every = 5
)";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // The run file with another end, [pipeline] and [checkpoint].
  void end_run_file(const std::string& end) const {
    const std::string text = read(folder_ + "/run.toml");
    std::ofstream(folder_ + "/run.toml") << text.substr(0, text.find("[pipeline]")) << end;
  }
  // With so many bytes of noise where a run comes to it late (step 55 of 60), so that a model that has learned the rest
  // takes it for a spike.
  void write_text(unsigned noise) const {
    const std::string made = made_once("text-" + std::to_string(noise), [&](const std::string& folder) {
      std::ofstream text(folder + "/text");
      for (unsigned i = 0; i < 3000; ++i) {
        text << "the quick brown fox " << i * i % 97 << " jumps over the lazy dog\n";
        for (unsigned n = 0; i == 2300 && n < noise; ++n) text << static_cast<char>(n * 2654435761u >> 13);
      }
      text.close();
      const auto packed = run({"data", "pack", "--train", folder + "/train.bin", "--validation",
                               folder + "/validation.bin", folder + "/text"});
      EXPECT_EQ(packed.code, 0) << packed.output;
      return packed.code == 0;
    });
    ASSERT_FALSE(made.empty());
    for (const char* file : {"/text", "/train.bin", "/validation.bin"})
      std::filesystem::copy_file(made + file, folder_ + file, std::filesystem::copy_options::overwrite_existing);
  }
  // The folder of a run with these settings, trained once for all tests that give it this name; empty: it failed.
  std::string run_once(const std::string& name, const std::vector<std::string>& settings) const {
    const std::string made = made_once(name, [&](const std::string& folder) {
      std::vector<std::string> arguments = {"train", folder_ + "/run.toml", "--out", folder + "/run"};
      for (const auto& set : settings) arguments.insert(arguments.end(), {"--set", set});
      const auto done = run(arguments);
      EXPECT_EQ(done.code, 0) << done.output;
      return done.code == 0;
    });
    return made.empty() ? made : made + "/run";
  }
  // A run in one stage that nothing happens to, as "whole": its losses and hashes are those of every run with these
  // settings, however its layers are cut.
  void whole_run(const std::string& name, const std::vector<std::string>& settings) const {
    const std::string made = run_once("whole-" + name, settings);
    ASSERT_FALSE(made.empty());
    std::filesystem::create_directories(folder_ + "/whole");
    for (const char* file : {"/metrics.jsonl", "/summary.json", "/events.jsonl"})
      std::filesystem::copy_file(made + file, folder_ + "/whole" + file);
  }
  // A run whose text has a stretch of noise, which it skips.
  static std::vector<std::string> noisy() {
    return {"run.steps=60", "train.learning_rate=0.01", "train.spike_window=16"};
  }
  void noisy_run() const {
    write_text(400);
    auto settings = noisy();
    settings.push_back("pipeline.stages=1");
    whole_run("noisy", settings);
  }
  // The folder `name` that `make` fills when the first test of a build asks for it, in whichever process; the others
  // find it there. Empty if it could not be made.
  std::string made_once(const std::string& name, const std::function<bool(const std::string& folder)>& make) const {
    namespace fs = std::filesystem;
    const fs::path all = ISTHMUS_BINARY_DIR "/fixtures", binary = ISTHMUS_BINARY_DIR "/isthmus";
    fs::create_directories(all);
    const int lock = ::open((all / (name + ".lock")).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock < 0 || ::flock(lock, LOCK_EX) != 0) return {};
    const fs::path folder = all / name, writing = all / (name + ".writing");
    // Another program may make something else, and another test ask for something else.
    const auto newest = std::max(fs::last_write_time(binary), fs::last_write_time(fs::canonical("/proc/self/exe")));
    if (!fs::exists(folder) || fs::last_write_time(folder / "made") < newest) {
      fs::remove_all(folder);
      fs::remove_all(writing);
      fs::create_directories(writing);
      if (make(writing)) {
        std::ofstream(writing / "made").close();
        fs::rename(writing, folder);
      }
    }
    ::close(lock);
    return fs::exists(folder) ? folder.string() : std::string();
  }
  pid_t start(const std::vector<std::string>& arguments, const std::string& output,
              const std::function<void()>& prepare = {}) const {
    const std::string binary = ISTHMUS_BINARY_DIR "/isthmus";
    std::vector<char*> argv = {const_cast<char*>(binary.c_str())};
    for (const auto& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    const int out = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::dup2(out, 1);
    ::dup2(out, 2);
    if (prepare) prepare();
    ::execv(binary.c_str(), argv.data());
    ::_exit(127);
  }
  Finished finish(pid_t pid, const std::string& output) const {
    int status = 0;
    ::waitpid(pid, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read(output)};
  }
  Finished run(const std::vector<std::string>& arguments, const std::function<void()>& prepare = {}) const {
    const std::string output = folder_ + "/output";
    return finish(start(arguments, output, prepare), output);
  }
  // Waits until `condition` holds; a minute at most. Whether it did.
  template <class Condition>
  static bool eventually(Condition&& condition, unsigned look_again_us = 5000) {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > give_up) return false;
      ::usleep(look_again_us);
    }
    return true;
  }
  static std::string read(const std::string& path) {
    std::ifstream in(path);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  // Whether the run gets to so many lines of metrics.
  bool reaches(const std::string& out, std::size_t steps) const {
    return eventually([&] {
      const std::string text = read(folder_ + "/" + out + "/metrics.jsonl");
      return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) >= steps;
    });
  }
  // Processes of this test's run: their command lines name its folder.
  std::vector<std::pair<pid_t, std::string>> processes(const std::string& out) const {
    std::vector<std::pair<pid_t, std::string>> found;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const std::string name = entry.path().filename();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      std::string command = read("/proc/" + name + "/cmdline");
      for (char& c : command) c = c == '\0' ? ' ' : c;
      for (const char* end : {" ", "/"})
        if (command.find(folder_ + "/" + out + end) != std::string::npos) {
          found.emplace_back(std::stoi(name), command);
          break;
        }
    }
    return found;
  }
  pid_t process(const std::string& out, const std::string& what) const {
    for (const auto& [pid, command] : processes(out))
      if (command.find(what) != std::string::npos) return pid;
    return -1;
  }
  pid_t worker(const std::string& out, int peer) const {
    return process(out, " --name worker-" + std::to_string(peer) + " ");
  }

  const std::string folder_ =
      std::filesystem::temp_directory_path().string() + "/isthmus-run-" + std::to_string(::getpid());
};
