#include "model/arithmetic.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace isthmus {

bool cpu_multiplies_bf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");  // every CPU with AMX has it, too
#elif defined(__aarch64__)
  constexpr unsigned long kBf16 = 1ul << 14;  // HWCAP2_BF16
  return (getauxval(AT_HWCAP2) & kBf16) != 0;
#else
  return false;
#endif
}

at::ScalarType arithmetic(const RunConfig& run) {
  const bool imitated = run.pipeline.device != "cuda" && !cpu_multiplies_bf16();
  return run.train.precision == "bf16" && !imitated ? at::kBFloat16 : at::kFloat;
}

std::string arithmetic_note(const RunConfig& run) {
  if (run.train.precision != "bf16" || run.pipeline.device == "emulated" || arithmetic(run) == at::kBFloat16) return "";
  return "this CPU does not multiply bf16 numbers, so layers compute in fp32 (train.precision)";
}

}  // namespace isthmus
