#pragma once

#include <deque>
#include <vector>

#include "base/bytes.h"
#include "spec/run_spec.h"
#include "store/safetensors.h"

namespace isthmus::stage {

// All tensors of a model as another program reads them. They point into `made` and into what they were made of.
struct MergedModel {
  std::vector<store::NamedTensor> tensors;
  std::deque<Bytes> made;
};

// Whether the run's stages are together nothing but a Llama: no token path, and at no cut does the stream lose anything
// or change the basis it is seen through.
bool is_llama(const spec::RunSpec& run);

}  // namespace isthmus::stage
