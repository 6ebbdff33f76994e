#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "spec/run_config.h"
#include "spec/stage_tensors.h"

namespace isthmus::model {

// One trained tensor of a stage and all that belongs to it.
struct Parameter {
  spec::TensorSpec spec;
  std::string name;    // spec.name()
  at::Tensor master;   // fp32
  at::Tensor compute;  // what the layers multiply with: bf16 copy of master, or master itself
  at::Tensor sum;      // of gradients: fp32, or int64 fixed point in deterministic mode; undefined: none yet
  at::Tensor total;    // fp32: the sum over the stage's replicas; undefined: `sum` is all there is
  // The optimizer's: AdamW's two, Muon's one (spec/stage_tensors.h), each like master.
  std::vector<at::Tensor> moments;
};

// The parameters of stage_tensors(), in its order, with their initial values: a pure function of the seed and the
// tensor's name, so the layout does not matter.
std::vector<Parameter> make_parameters(const spec::RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer);

// Refreshes every compute copy from its master.
void refresh_compute_copies(std::vector<Parameter>& parameters);

}  // namespace isthmus::model
