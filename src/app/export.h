#pragma once

#include <cstdint>
#include <string>

#include "app/owned_run.h"

namespace isthmus {

// `isthmus export`: a checkpoint as a folder that Hugging Face's transformers load: a LlamaForCausalLM where the run's model is
// one, otherwise an IsthmusForCausalLM with its code beside it (src/app/modeling_isthmus.py). Weights are fp32.
struct ExportOptions {
  OwnedRunOptions run;
  std::string folder;            // to make; nothing may be in it
  std::string vocabulary;        // sentencepiece model that the tokenizer is made of; empty: none
  std::uint64_t shard_mb = 5000;  // 10^6 bytes of weights in a file, at least one tensor
  bool json = false;
};

// Writes beside the folder and renames at the end. Returns the process's exit code.
int export_run(const ExportOptions& options);

}  // namespace isthmus
