#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "base/bytes.h"
#include "model/parameter.h"

namespace isthmus::libtorch {

// A stage's tensors as rows of bytes, as they travel and are kept.

// REQUIRES: contiguous, on the CPU; it outlives the view.
ByteView bytes_of(const at::Tensor& cpu);
// The next values of these bytes, as a tensor like this one. REQUIRES: there are as many.
at::Tensor take_floats(ByteView& bytes, const at::Tensor& like);
// All weights, one tensor behind the other.
std::vector<float> flat_weights(const std::vector<model::Parameter>& parameters);
// What a replica needs to go on as another: weights, then what the optimizer keeps.
std::vector<at::Tensor> trained_tensors(const model::Parameter& parameter);

}  // namespace isthmus::libtorch
