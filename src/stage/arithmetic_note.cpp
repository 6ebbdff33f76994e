#include "stage/arithmetic_note.h"

#include "process/cpu.h"

namespace isthmus::stage {

std::string arithmetic_note(const spec::RunConfig& run) {
  if (run.train.precision != "bf16" || run.host.device != "cpu" || process::cpu_multiplies_bf16()) return "";
  return "this CPU does not multiply bf16 numbers, so layers compute in fp32 (train.precision)";
}

}  // namespace isthmus::stage
