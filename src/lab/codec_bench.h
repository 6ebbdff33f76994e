#pragma once

#include "spec/run_config.h"

namespace isthmus::lab {

struct CodecBenchOptions {
  double seconds = 0.3;  // for each figure
  bool json = false;
};

// `isthmus bench codecs`: how fast each codec turns one of the run's microbatches into bytes and back, on one core,
// beside the memory bandwidth of the same minute, and what share of a stage's step the run's own codecs take. Prints a
// table or one JSON object. Returns the process's exit code.
int bench_codecs(const spec::RunConfig& run, const CodecBenchOptions& options);

}  // namespace isthmus::lab
