#include "model/optimizer.h"

#include <ATen/ATen.h>

#include <map>
#include <utility>

#include "model/arithmetic.h"
#include "model/muon.h"

namespace isthmus::model {

void Optimizer::step(std::vector<Parameter>& parameters, const GradientSums& sums, double scale, double learning_rate) {
  ++steps_;
  const auto& t = run_.train;
  // What one call of the kernel updates: equal steps and equal decay.
  std::map<std::pair<double, bool>, std::vector<Parameter*>> groups;
  for (auto& p : parameters) {
    const double factor = p.spec.writes ? t.writer_learning_rate : 1.0;
    if (p.moments.size() == 1) {
      const at::Tensor gradient = sums.value(p);
      const auto weights = p.master.chunk(p.spec.stacked), momenta = p.moments[0].chunk(p.spec.stacked),
                 gradients = gradient.chunk(p.spec.stacked);
      for (std::size_t i = 0; i < weights.size(); ++i)
        muon_step(weights[i], momenta[i], scale == 1.0 ? gradients[i] : gradients[i].mul(scale), learning_rate * factor,
                  t.momentum, t.weight_decay / factor, arithmetic(run_));
    } else {
      groups[{factor, p.spec.decays()}].push_back(&p);
    }
  }
  // The share of a weight that decays in a step is the same for all.
  for (auto& [group, members] : groups) {
    const auto [factor, decays] = group;
    adamw_step(std::move(members), sums, scale, learning_rate * factor, decays ? t.weight_decay / factor : 0.0);
  }
}

void Optimizer::adamw_step(std::vector<Parameter*> parameters, const GradientSums& sums, double scale,
                           double learning_rate, double decay) {
  std::vector<at::Tensor> weights, gradients, averages, squares, steps;
  for (Parameter* p : parameters) {
    const at::Tensor gradient = sums.value(*p);
    weights.push_back(p->master);
    gradients.push_back(scale == 1.0 ? gradient : gradient.mul(scale));
    averages.push_back(p->moments[0]);
    squares.push_back(p->moments[1]);
    // The kernel reads the number of the step that is being taken.
    steps.push_back(at::full({}, static_cast<double>(steps_), p->master.options()));
  }
  const auto& t = run_.train;
  at::_fused_adamw_(weights, gradients, averages, squares, {}, steps, learning_rate, t.beta1, t.beta2, decay, t.epsilon,
                    /*amsgrad=*/false,
                    /*maximize=*/false);
}

}  // namespace isthmus::model
