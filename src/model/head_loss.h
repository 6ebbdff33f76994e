#pragma once

#include <ATen/core/Tensor.h>

#include "model/parameter.h"
#include "model/weight_work.h"

namespace isthmus::model {

// Sum of cross entropies over rows, fp32, of the logits x · headᵀ. x: rows × hidden; labels: rows, int64.
// Differentiable as layers.h says. Where all logits are more than spec/logits_slice.h allows, they are made slice by
// slice: forward also makes the gradient of x, from the same slices, and the weight's work makes them once more. What
// is kept in between is as large as x.
at::Tensor head_loss(const at::Tensor& x, Parameter& head, const at::Tensor& labels, WeightWorkList* work);

// Of the head matrix's gradient, the rows first … first + rows - 1, as `work` of head_loss has it; in the compute type.
// REQUIRES: work.kind is kSlicedHead.
at::Tensor head_gradient(const WeightWork& work, std::int64_t first, std::int64_t rows);

}  // namespace isthmus::model
