// Memory that does not suffice, for the program or for libtorch.

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <string>
#include <vector>

#include "app/command_line_test.h"

namespace {

using testing::AnyOf;
using testing::HasSubstr;

class MemoryLimitTest : public CommandLineTest {
 protected:
  Finished limited(rlim_t megabytes, const std::vector<std::string>& command) const {
    return run(command, [&] {
      const rlimit limit{megabytes << 20, megabytes << 20};
      ::setrlimit(RLIMIT_AS, &limit);
    });
  }
};

TEST_F(MemoryLimitTest, OfTheProgramIsASentence) {
  const auto large = limited(40, {"bench", "fleet", "--machines", "100000", "--stages", "1000"});
  // The loader has its own sentence, and exit code, when not even the libraries fit.
  EXPECT_THAT(large.code, AnyOf(1, 127)) << large.output;
  EXPECT_THAT(large.output, AnyOf(HasSubstr("not enough memory"), HasSubstr("error while loading")));
}

TEST_F(MemoryLimitTest, OfLibtorchIsASentence) {
  ASSERT_EQ(run({"train", folder_ + "/run.toml", "--out", folder_ + "/out", "--set", "run.steps=2"}).code, 0);
  const auto text = limited(400, {"generate", folder_ + "/out", "--prompt", "a", "--tokens", "1"});
  EXPECT_EQ(text.code, 1) << text.output;
  EXPECT_THAT(text.output, HasSubstr("cannot load libtorch: this process may have 419 MB of address space"));
}

}  // namespace
