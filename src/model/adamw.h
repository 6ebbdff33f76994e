#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/run_config.h"
#include "model/parameter.h"
#include "model/weight_work.h"

namespace isthmus {

// AdamW (Loshchilov and Hutter, 2019) with libtorch's fused kernels: bias correction, decoupled weight decay on
// matrices, none on norms; fp32.
class AdamW {
 public:
  explicit AdamW(const RunConfig& run) : run_(run) {}

  // One step with the summed gradients times `scale`.
  void step(std::vector<Parameter>& parameters, const GradientSums& sums, double scale, double learning_rate);

  // Steps taken so far, for the bias correction; part of a checkpoint.
  std::uint64_t steps() const { return steps_; }
  void set_steps(std::uint64_t steps) { steps_ = steps; }

 private:
  const RunConfig run_;
  std::uint64_t steps_ = 0;
};

}  // namespace isthmus
