#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "spec/run_spec.h"
#include "store/safetensors.h"

namespace isthmus::model {

// All tensors of a model as another program reads them. They point into `made` and into what they were made of.
struct MergedModel {
  std::vector<store::NamedTensor> tensors;
  std::deque<Bytes> made;
};

// Whether the run's stages are together nothing but a Llama: no token path, and at no cut does the stream lose anything
// or change the basis it is seen through.
bool is_llama(const spec::RunSpec& run);

// Below, `weights` are the trained tensors of all stages by name, of the run's shapes.

// Under the names and in the form of transformers' LlamaForCausalLM. Factored matrices are multiplied out and the fixed
// table is added to the learned one, in double. REQUIRES: is_llama(run).
MergedModel llama_model(const spec::RunSpec& run, const std::map<std::string, store::NamedTensor>& weights);

// As they were trained, and with them what follows from the seed: fixed.basis (U) and fixed.embedding (E), if the run's
// form has them. For src/app/modeling_isthmus.py.
MergedModel isthmus_model(const spec::RunSpec& run, const std::map<std::string, store::NamedTensor>& weights);

}  // namespace isthmus::model
