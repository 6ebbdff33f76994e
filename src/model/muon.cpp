#include "model/muon.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace isthmus::model {

at::Tensor orthogonalized(const at::Tensor& matrix, at::ScalarType arithmetic) {
  // The quintic's coefficients trade exactness for the slope at zero (Jordan et al.).
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  const bool tall = matrix.size(0) > matrix.size(1);
  at::Tensor x = (tall ? matrix.t() : matrix).contiguous();
  x = (x / (x.norm() + 1e-7)).to(arithmetic);
  for (int i = 0; i < 5; ++i) {
    const at::Tensor gram = at::mm(x, x.t());
    x = at::addmm(x, at::addmm(gram, gram, gram, b, c), x, a, 1.0);
  }
  return (tall ? x.t() : x).to(at::kFloat).contiguous();
}

void muon_step(const at::Tensor& weight, const at::Tensor& momentum, const at::Tensor& gradient, double learning_rate,
               double momentum_share, double decay, at::ScalarType arithmetic) {
  momentum.mul_(momentum_share).add_(gradient);
  const double size = 0.2 * std::sqrt(static_cast<double>(std::max(weight.size(0), weight.size(1))));
  const at::Tensor update = orthogonalized(gradient + momentum * momentum_share, arithmetic);
  weight.mul_(1 - learning_rate * decay).add_(update, -learning_rate * size);
}

}  // namespace isthmus::model
