#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/command_line_test.h"

// Coordinator and workers of an emulated run of two stages, started one by one.
class ByHandTest : public CommandLineTest {
 protected:
  void SetUp() override {
    CommandLineTest::SetUp();
    end_run_file(R"([pipeline]
layout = "auto"
stages = 2
device = "emulated"
[emulated]
forward_ms = 10
input_gradient_ms = 10
weight_gradient_ms = 10
[checkpoint]
every = 5
)");
  }
  void TearDown() override {
    for (const pid_t pid : started_) ::kill(pid, SIGKILL);
    CommandLineTest::TearDown();
  }
  std::string output(const std::string& name) const { return folder_ + "/" + name + ".txt"; }
  pid_t begin(const std::string& name, std::vector<std::string> arguments, const std::function<void()>& prepare = {}) {
    started_.push_back(start(arguments, output(name), prepare));
    return started_.back();
  }
  pid_t coordinate(std::vector<std::string> more = {}, const std::function<void()>& prepare = {}) {
    std::vector<std::string> arguments = {"coordinator", folder_ + "/run.toml", "--out", folder_ + "/out"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return begin("coordinator", arguments, prepare);
  }
  pid_t work(const std::string& name, std::vector<std::string> more = {}, const std::function<void()>& prepare = {}) {
    // Patience, so that a test whose coordinator fails comes to an end.
    std::vector<std::string> arguments = {"join", folder_ + "/out/join", "--home", folder_ + "/" + name, "--patience",
                                          "60"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return begin(name, arguments, prepare);
  }
  Finished end(pid_t pid, const std::string& name) {
    std::erase(started_, pid);
    return finish(pid, output(name));
  }
  void kill_at_once(pid_t pid) {
    ::kill(pid, SIGKILL);
    std::erase(started_, pid);
    int status = 0;
    ::waitpid(pid, &status, 0);
  }
  nlohmann::json summary(const std::string& out) const {
    return nlohmann::json::parse(read(folder_ + "/" + out + "/summary.json"));
  }
  std::string events() const { return read(folder_ + "/out/events.jsonl"); }
  void expect_undisturbed() {
    const auto whole = run({"train", folder_ + "/run.toml", "--out", folder_ + "/whole"});
    ASSERT_EQ(whole.code, 0) << whole.output;
    EXPECT_EQ(summary("out")["weights_hash"], summary("whole")["weights_hash"]);
    EXPECT_FALSE(summary("out")["weights_hash"].empty());
  }
  std::vector<pid_t> started_;
};
