// The program alone, without the library that computes: as a build without libtorch leaves it, or half an installation.

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "app/command_line_test.h"

namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class WithoutLibtorchTest : public CommandLineTest {
 protected:
  void SetUp() override {
    CommandLineTest::SetUp();
    fs::create_directories(path("bin"));
    fs::copy_file(ISTHMUS_BINARY_DIR "/isthmus", path("bin/isthmus"));
  }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  // Its exit code; what it says is in output().
  int alone(const std::string& arguments) const {
    return WEXITSTATUS(std::system((path("bin/isthmus") + " " + arguments + " > " + path("said") + " 2>&1").c_str()));
  }
  std::string output() const { return read(path("said")); }
};

TEST_F(WithoutLibtorchTest, NothingIsBegunAndTheSentenceSaysWhatIsMissing) {
  EXPECT_EQ(alone("train " + path("run.toml") + " --out " + path("out")), 1);
  EXPECT_THAT(output(), HasSubstr("computes with libtorch, but libisthmus_torch.so is not in " + path("bin")));
  EXPECT_FALSE(fs::exists(path("out")));
}

TEST_F(WithoutLibtorchTest, WhatNeedsNoArithmeticRuns) {
  EXPECT_EQ(alone("plan " + path("run.toml")), 0) << output();
  EXPECT_EQ(alone("simulate " + path("run.toml") + " --steps 2"), 0) << output();
  EXPECT_EQ(alone("train " + path("run.toml") + " --out " + path("out") +
                  " --set pipeline.device=emulated --set run.steps=2 --set emulated.forward_ms=1"
                  " --set emulated.input_gradient_ms=1 --set emulated.weight_gradient_ms=1"),
            0)
      << output();
}

TEST_F(WithoutLibtorchTest, WhatIsNotTheLibraryIsNotLoaded) {
  std::ofstream(path("bin/libisthmus_torch.so")) << "no library";
  EXPECT_EQ(alone("train " + path("run.toml") + " --out " + path("out")), 1);
  EXPECT_THAT(output(), HasSubstr("cannot load libtorch: "));
}

}  // namespace
