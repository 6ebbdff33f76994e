#pragma once

#include <map>
#include <string>

#include "spec/run_spec.h"
#include "stage/merged_model.h"

namespace isthmus::libtorch {

// `weights` are the trained tensors of all stages by name, of the run's shapes.

// Under the names and in the form of transformers' LlamaForCausalLM. Factored matrices are multiplied out and the fixed
// table is added to the learned one, in double. REQUIRES: stage::is_llama(run).
stage::MergedModel llama_model(const spec::RunSpec& run, const std::map<std::string, store::NamedTensor>& weights);

// As they were trained, and with them what follows from the seed: fixed.basis (U) and fixed.embedding (E), if the run's
// form has them. For src/app/modeling_isthmus.py.
stage::MergedModel isthmus_model(const spec::RunSpec& run, const std::map<std::string, store::NamedTensor>& weights);

}  // namespace isthmus::libtorch
