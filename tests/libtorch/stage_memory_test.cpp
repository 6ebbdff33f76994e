#include "spec/stage_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

namespace isthmus::libtorch {
namespace {

namespace fs = std::filesystem;

struct MemoryCase {
  const char* name;
  std::uint32_t stage;
  std::string run;
  friend void PrintTo(const MemoryCase& c, std::ostream* out) { *out << c.name; }
};

const MemoryCase kCases[] = {
    {"LargeVocabularyTail", 1,
     "[model]\nlayers = 2\nhidden = 64\nheads = 2\ncontext = 128\nvocabulary = 32000\n"
     "[train]\nmicrobatches_per_step = 2\noptimizer = \"adamw\"\nprecision = \"fp32\"\n"
     "[pipeline]\nlayout = \"auto\"\nstages = 2\nthreads = 1\n"},
    {"LargeVocabularyFirst", 0,
     "[model]\nlayers = 4\nhidden = 128\nheads = 2\ncontext = 256\nvocabulary = 32000\n"
     "[train]\nmicrobatches_per_step = 4\noptimizer = \"muon\"\nprecision = \"fp32\"\n"
     "[boundary]\ncodec = \"identity\"\n"
     "[pipeline]\nlayout = \"auto\"\nstages = 2\nthreads = 1\n"},
    {"Middle", 1,
     "[model]\nlayers = 3\nhidden = 384\nheads = 6\ncontext = 128\n"
     "[train]\nmicrobatches_per_step = 6\noptimizer = \"adamw\"\nprecision = \"fp32\"\n"
     "[pipeline]\nlayout = \"auto\"\nstages = 3\nthreads = 1\n"},
    {"MiddleBf16", 1,
     "[model]\nlayers = 3\nhidden = 384\nheads = 6\ncontext = 128\n"
     "[train]\nmicrobatches_per_step = 6\noptimizer = \"muon\"\n"
     "[pipeline]\nlayout = \"auto\"\nstages = 3\nthreads = 1\n"},
    {"DeterministicTail", 1,
     "[run]\ndeterministic = true\n"
     "[model]\nlayers = 4\nhidden = 192\nheads = 3\ncontext = 256\n"
     "[train]\nmicrobatches_per_step = 4\noptimizer = \"muon\"\nprecision = \"fp32\"\n"
     "[pipeline]\nlayout = \"auto\"\nstages = 2\n"},
    {"Recomputed", 1,
     "[model]\nlayers = 6\nhidden = 128\nheads = 2\ncontext = 256\n"
     "[train]\nmicrobatches_per_step = 6\noptimizer = \"adamw\"\nprecision = \"fp32\"\n"
     "[pipeline]\nlayout = \"auto\"\nstages = 3\nthreads = 1\nrecompute = \"always\"\n"},
};

class StageMemoryTest : public ::testing::TestWithParam<MemoryCase> {};

// The peak of a process of its own over two steps, to 10 %: as small as these are, half of it is the process.
TEST_P(StageMemoryTest, IsPlannedAsItIsMeasured) {
  const MemoryCase& c = GetParam();
  const std::string folder = ::testing::TempDir() + "/isthmus-memory-" + c.name + "-" + std::to_string(::getpid());
  fs::create_directories(folder);
  const std::string file = folder + "/run.toml";
  std::ofstream(file) << c.run << "[data]\ntrain = \"train.bin\"\nvalidation = \"validation.bin\"\n";

  const std::string command = std::string(ISTHMUS_MEMORY_PROBE) + " " + file + " " + std::to_string(c.stage);
  double measured = 0, planned = 0;
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> probe(::popen(command.c_str(), "r"), &::pclose);
  ASSERT_TRUE(probe);
  ASSERT_EQ(std::fscanf(probe.get(), "%lf %lf", &measured, &planned), 2);
  EXPECT_NEAR(planned / measured, 1, 0.1) << planned * 1e-6 << " MB planned, " << measured * 1e-6 << " MB measured";
  // More than what a process has without a stage.
  EXPECT_GT(measured, 200e6);
  fs::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(Shapes, StageMemoryTest, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace isthmus::libtorch
