#pragma once

#include <cstdint>
#include <vector>

#include "model/parameter.h"
#include "model/weight_work.h"
#include "spec/run_config.h"

namespace isthmus::model {

// The run's optimizer: AdamW for everything, or Muon for the matrices that map one stream to another and AdamW for the
// rest. One learning rate for both.
class Optimizer {
 public:
  explicit Optimizer(const spec::RunConfig& run) : run_(run) {}

  // One step with the summed gradients times `scale`. Updates the masters only.
  void step(std::vector<Parameter>& parameters, const GradientSums& sums, double scale, double learning_rate);

  // Steps taken so far, for AdamW's bias correction; part of a checkpoint.
  std::uint64_t steps() const { return steps_; }
  void set_steps(std::uint64_t steps) { steps_ = steps; }

 private:
  // AdamW (Loshchilov and Hutter, 2019) with libtorch's fused kernels; decoupled weight decay.
  void adamw_step(std::vector<Parameter*> parameters, const GradientSums& sums, double scale, double learning_rate,
                  double decay);
  const spec::RunConfig run_;
  std::uint64_t steps_ = 0;
};

}  // namespace isthmus::model
