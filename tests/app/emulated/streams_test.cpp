// Standard streams that are closed or full.

#include <gmock/gmock.h>

#include <filesystem>
#include <string>
#include <vector>

#include "app/command_line_test.h"

namespace {

using testing::HasSubstr;

class StreamsTest : public CommandLineTest {
 protected:
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
};

TEST_F(StreamsTest, AResultThatIsNotWrittenIsAFailure) {
  const std::string run_file = path("run.toml");
  std::vector<std::vector<std::string>> commands = {
      {"--help"},
      {"--version"},
      {"plan", "--help"},
      {"plan", run_file},
      {"plan", run_file, "--json"},
      {"simulate", run_file, "--steps", "1"},
      {"simulate", run_file, "--steps", "1", "--json"},
      {"bench", "rebalance", "--hours", "1", "--seeds", "1", "--json"},
      {"data", "baseline", path("train.bin"), path("validation.bin")},
      {"data", "pack", "--json", "--train", path("t"), "--validation", path("v"), path("text")}};
  for (const auto& command : commands) {
    const auto done = run(command, [] { ::dup2(::open("/dev/full", O_WRONLY), 1); });
    EXPECT_EQ(done.code, 1) << command[0];
    EXPECT_THAT(done.output, HasSubstr("cannot write the output")) << command[0];
  }
}

TEST_F(StreamsTest, MayAllBeClosed) {
  const auto closed = [] {
    for (const int fd : {0, 1, 2}) ::close(fd);
  };
  end_run_file(R"([pipeline]
device = "emulated"
layout = "auto"
stages = 2
[emulated]
forward_ms = 1
input_gradient_ms = 1
weight_gradient_ms = 1
)");
  EXPECT_EQ(run({"plan", path("run.toml")}, closed).code, 0);
  EXPECT_EQ(run({"plan", path("none.toml")}, closed).code, 78);
  const auto trained = run({"train", path("run.toml"), "--out", path("out"), "--set", "run.steps=2"}, closed);
  EXPECT_EQ(trained.code, 0);
  // What is printed went into none of its files.
  EXPECT_THAT(read(path("out/summary.json")), HasSubstr("\"finished\": true"));
  EXPECT_THAT(read(path("out/metrics.jsonl")), testing::Not(HasSubstr("tokens/s")));
}

}  // namespace
