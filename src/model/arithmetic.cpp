#include "model/arithmetic.h"

#include "process/cpu.h"

namespace isthmus::model {

at::ScalarType arithmetic(const spec::RunConfig& run) {
  const bool imitated = run.host.device != "cuda" && !process::cpu_multiplies_bf16();
  return run.train.precision == "bf16" && !imitated ? at::kBFloat16 : at::kFloat;
}

}  // namespace isthmus::model
