#include "model/arithmetic.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "model/parameter.h"

namespace isthmus {
namespace {

RunConfig run_with(const std::string& precision) {
  RunConfig run;
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
  EXPECT_EQ(arithmetic(run_with("fp32")), at::kFloat);
  EXPECT_EQ(arithmetic(run_with("bf16")), cpu_multiplies_bf16() ? at::kBFloat16 : at::kFloat);
  RunConfig cuda = run_with("bf16");
  cuda.pipeline.device = "cuda";
  EXPECT_EQ(arithmetic(cuda), at::kBFloat16);
#if defined(__x86_64__)
  EXPECT_EQ(cpu_multiplies_bf16(), kernel_says_bf16());
#endif
}

TEST(Arithmetic, IsWhatTheLayersMultiplyWith) {
  for (const char* precision : {"bf16", "fp32"}) {
    const RunConfig run = run_with(precision);
    for (const auto& parameter : make_parameters(run, 0, 1)) {
      EXPECT_EQ(parameter.master.scalar_type(), at::kFloat);
      if (parameter.spec.kind != TensorSpec::Kind::kNorm) {
        EXPECT_EQ(parameter.compute.scalar_type(), arithmetic(run)) << parameter.name;
      }
    }
  }
}

TEST(Arithmetic, SaysWhereItIsNotWhatTheRunAsksFor) {
  EXPECT_EQ(arithmetic_note(run_with("fp32")), "");
  EXPECT_EQ(arithmetic_note(run_with("bf16")).empty(), cpu_multiplies_bf16());
}

}  // namespace
}  // namespace isthmus
