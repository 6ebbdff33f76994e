#include "model/arithmetic.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "model/parameter.h"
#include "process/cpu.h"
#include "stage/arithmetic_note.h"

namespace isthmus::libtorch {
namespace {

spec::RunConfig run_with(const std::string& precision) {
  spec::RunConfig run;
  run.model.layers = 1;
  run.model.hidden = 8;
  run.model.heads = 1;
  run.model.mlp = 16;
  run.model.vocabulary = 16;
  run.boundary.codec = "identity";
  run.train.precision = precision;
  return run;
}

// What the kernel says of the CPU, on x86.
bool kernel_says_bf16() {
  std::ifstream file("/proc/cpuinfo");
  std::stringstream text;
  text << file.rdbuf();
  return text.str().find(" avx512_bf16") != std::string::npos;
}

TEST(Arithmetic, IsWhatTheRunAsksForWhereTheDeviceHasIt) {
  EXPECT_EQ(model::arithmetic(run_with("fp32")), at::kFloat);
  EXPECT_EQ(model::arithmetic(run_with("bf16")), process::cpu_multiplies_bf16() ? at::kBFloat16 : at::kFloat);
  spec::RunConfig cuda = run_with("bf16");
  cuda.host.device = "cuda";
  EXPECT_EQ(model::arithmetic(cuda), at::kBFloat16);
#if defined(__x86_64__)
  EXPECT_EQ(process::cpu_multiplies_bf16(), kernel_says_bf16());
#endif
}

TEST(Arithmetic, IsWhatTheLayersMultiplyWith) {
  for (const char* precision : {"bf16", "fp32"}) {
    const spec::RunConfig run = run_with(precision);
    for (const auto& parameter : model::make_parameters(run, 0, 1)) {
      EXPECT_EQ(parameter.master.scalar_type(), at::kFloat);
      if (parameter.spec.kind != spec::TensorSpec::Kind::kNorm) {
        EXPECT_EQ(parameter.compute.scalar_type(), model::arithmetic(run)) << parameter.name;
      }
    }
  }
}

TEST(Arithmetic, SaysWhereItIsNotWhatTheRunAsksFor) {
  EXPECT_EQ(stage::arithmetic_note(run_with("fp32")), "");
  EXPECT_EQ(stage::arithmetic_note(run_with("bf16")).empty(), process::cpu_multiplies_bf16());
}

}  // namespace
}  // namespace isthmus::libtorch
