#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/parameter.h"

namespace isthmus::model {

// One weight gradient that the backward pass left to be computed later (the W of F / I / W).
struct WeightWork {
  enum class Kind { kLinear, kReady, kTable, kSlicedHead } kind;
  Parameter* parameter = nullptr;
  at::Tensor input;     // linear, head: rows × in;  table: row ids
  at::Tensor gradient;  // linear: rows × out;  ready: the gradient itself;  table: rows × width;  head: of the loss
  at::Tensor labels;    // head: rows
  at::Tensor log_sums;  // head: rows; of the exponentials of a row's logits
};
using WeightWorkList = std::vector<WeightWork>;

// Adds weight gradients into the parameters' sums. In fixed point (deterministic mode) a gradient is rounded to a
// multiple of 2^-44 and added as int64, so the sum does not depend on the order of the additions; its range is ±2^19.
class GradientSums {
 public:
  explicit GradientSums(bool fixed_point) : fixed_point_(fixed_point) {}

  void add(const WeightWorkList& work);
  // False once a gradient was not finite or left the fixed-point range.
  bool finite() const { return finite_; }
  // The gradient that counts, as fp32: the parameter's `total` if there is one, otherwise its sum; zeros if nothing was
  // added.
  at::Tensor value(const Parameter& parameter) const;
  // The sum as it travels between replicas: int64 in fixed point, otherwise fp32; on the CPU.
  at::Tensor sum(const Parameter& parameter) const;
  // Element-wise sums of such numbers, in this order, as fp32.
  at::Tensor add(const std::vector<at::Tensor>& sums) const;
  void clear(std::vector<Parameter>& parameters);

 private:
  // To all of the parameter's rows, or to those from `first_row` on.
  void add(Parameter& parameter, const at::Tensor& gradient, std::int64_t first_row = 0);
  const bool fixed_point_;
  bool finite_ = true;
};

}  // namespace isthmus::model
