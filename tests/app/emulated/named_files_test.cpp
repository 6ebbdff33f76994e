// Files that a command line names: what is written, and what is read.

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "app/command_line_test.h"

namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class NamedFilesTest : public CommandLineTest {
 protected:
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  void make_pipe(const std::string& name) const { ASSERT_EQ(::mkfifo(path(name).c_str(), 0600), 0); }

  // Every command that writes a file under a name the user gives; `out` is that name.
  std::vector<std::vector<std::string>> writers(const std::string& out) const {
    std::ofstream(path("case.toml"))
        << "stages = [1, 1]\nvisits = 2\nskips_in_a_row = 1\nmicrobatches = 1\nforward_seconds = 1\n"
           "microbatch_bytes = 1000000\ndraws = 0\n"
           "[link]\nfastest_mbps = 100\nfastest_rtt_ms = 10\nslowest_mbps = 10\nslowest_rtt_ms = 100\n"
           "[[region]]\nname = \"a\"\nrtt_ms = []\n[[region]]\nname = \"b\"\nrtt_ms = [70]\n";
    return {{"data", "pack", "--train", out, "--validation", path("v"), path("text"), "--force"},
            {"data", "pack", "--train", path("t"), "--validation", out, path("text"), "--force"},
            {"data", "vocabulary", "--size", "300", "--out", out, path("text"), "--force"},
            {"bench", "paths", path("case.toml"), "--out", out, "--force"}};
  }
  static std::vector<std::string> unforced(std::vector<std::string> command) {
    command.pop_back();
    return command;
  }
};

TEST_F(NamedFilesTest, OutputsReplaceNothingUnasked) {
  for (const auto& command : writers(path("precious"))) {
    SCOPED_TRACE(command[1] + " " + command[2]);
    std::ofstream(path("precious")) << "old";
    const auto refused = run(unforced(command));
    EXPECT_EQ(refused.code, 1);
    EXPECT_THAT(refused.output, HasSubstr(path("precious") + " exists; --force replaces it"));
    EXPECT_EQ(read(path("precious")), "old");
    const auto forced = run(command);
    EXPECT_EQ(forced.code, 0) << forced.output;
    EXPECT_NE(read(path("precious")), "old");
    fs::remove(path("precious"));
    fs::remove(path("t"));
    fs::remove(path("v"));
    EXPECT_EQ(run(unforced(command)).code, 0);
  }
}

TEST_F(NamedFilesTest, OutputsGoThroughLinksAndIntoNothingElse) {
  make_pipe("pipe");
  fs::create_symlink("target", path("link"));
  for (const auto& command : writers(path("link"))) {
    SCOPED_TRACE(command[1] + " " + command[2]);
    EXPECT_EQ(run(command).code, 0);
    EXPECT_TRUE(fs::is_symlink(path("link")));
    EXPECT_TRUE(fs::is_regular_file(path("target")));
    fs::remove(path("target"));
  }
  fs::create_symlink("pipe", path("link to a pipe"));
  for (const std::string& out : {path("pipe"), path("link to a pipe"), folder_})
    for (const auto& command : writers(out)) {
      const auto refused = run(command);
      EXPECT_EQ(refused.code, 1) << command[1] << " " << out;
      EXPECT_THAT(refused.output, HasSubstr("expected a regular file"));
    }
  EXPECT_TRUE(fs::is_fifo(path("pipe")));
}

TEST_F(NamedFilesTest, OutputsHaveAName) {
  for (const std::string& out : {std::string(), path("made/"), path("made/.")})
    for (const auto& command : writers(out)) {
      const auto refused = run(command);
      EXPECT_EQ(refused.code, 1) << command[1] << " " << out;
      EXPECT_THAT(refused.output, HasSubstr("names no file"));
    }
  EXPECT_FALSE(fs::exists(path("made")));
}

TEST_F(NamedFilesTest, InputsAreRegularFiles) {
  make_pipe("pipe");
  const std::string run_file = path("run.toml"), train = path("train.bin");
  for (const auto& [named, kind] : {std::pair(path("pipe"), "a named pipe"), std::pair(folder_, "a folder"),
                                    std::pair(std::string("/dev/zero"), "a device")})
    for (const auto& command : std::vector<std::vector<std::string>>{
             {"plan", named},
             {"plan", run_file, "--measured", named},
             {"simulate", named},
             {"train", named},
             {"train", run_file, "--host", named},
             {"train", run_file, "--set", "data.train=" + named},
             {"coordinator", run_file, "--out", path("c"), "--host", named},
             {"join", named, "--home", path("w")},
             {"bench", "convergence", named},
             {"bench", "codecs", named},
             {"bench", "paths", named},
             {"data", "pack", "--train", path("t"), "--validation", path("v"), named},
             {"data", "pack", "--train", path("t"), "--validation", path("v"), "--vocabulary", named, path("text")},
             {"data", "vocabulary", "--out", path("m"), named},
             {"data", "baseline", named, train},
             {"data", "baseline", train, named}}) {
      const auto refused = run(command);
      EXPECT_THAT(refused.code, testing::AnyOf(1, 78)) << command[0] << " " << command[1] << refused.output;
      EXPECT_THAT(refused.output, HasSubstr(named + ": this is " + kind + ", expected a"))
          << command[0] << " " << command[1];
    }
}

}  // namespace
