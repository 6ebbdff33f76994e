#pragma once

#include <cstdint>
#include <string>

#include "app/owned_run.h"

namespace isthmus {

// `isthmus generate`: text that a run's checkpoint continues a prompt with, to stdout as it comes.
struct GenerateOptions {
  OwnedRunOptions run;
  std::string prompt;
  std::string vocabulary;    // sentencepiece model; empty: the ids are bytes
  std::uint32_t tokens = 200;
  double temperature = 0.8;  // 0: always the likeliest token
  std::uint32_t top_k = 40;  // the likeliest so many are drawn from; 0: all
  std::uint64_t seed = 1;    // equal seeds, equal text
};

// Returns the process's exit code.
int generate(const GenerateOptions& options);

}  // namespace isthmus
