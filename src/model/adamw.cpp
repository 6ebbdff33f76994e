#include "model/adamw.h"

#include <ATen/ATen.h>

namespace isthmus {

void AdamW::step(std::vector<Parameter>& parameters, const GradientSums& sums, double scale, double learning_rate) {
  ++steps_;
  const auto& t = run_.train;
  for (const bool decay : {true, false}) {
    std::vector<at::Tensor> weights, gradients, averages, squares, steps;
    for (auto& p : parameters) {
      if (p.decay != decay) continue;
      at::Tensor gradient = sums.value(p);
      weights.push_back(p.master);
      gradients.push_back(scale == 1.0 ? gradient : gradient.mul(scale));
      averages.push_back(p.exp_avg);
      squares.push_back(p.exp_avg_sq);
      // The kernel reads the number of the step that is being taken.
      steps.push_back(at::full({}, static_cast<double>(steps_), p.master.options()));
    }
    if (weights.empty()) continue;
    at::_fused_adamw_(weights, gradients, averages, squares, {}, steps, learning_rate, t.beta1, t.beta2,
                      decay ? t.weight_decay : 0.0, t.epsilon, /*amsgrad=*/false, /*maximize=*/false);
  }
}

}  // namespace isthmus
