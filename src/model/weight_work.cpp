#include "model/weight_work.h"

#include <ATen/ATen.h>


namespace isthmus {

namespace {

constexpr double kFixedPointScale = 17592186044416.0;  // 2^44
constexpr double kFixedPointMax = 524288.0;            // 2^19

}  // namespace

void GradientSums::add(Parameter& p, const at::Tensor& gradient) {
  if (!fixed_point_) {
    if (!p.sum.defined())
      p.sum = gradient.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    else
      p.sum.add_(gradient);
    return;
  }
  if (!p.sum.defined()) p.sum = at::zeros(p.master.sizes(), p.master.options().dtype(at::kLong));
  const at::Tensor wide = gradient.to(at::kDouble);
  if (!(wide.abs().max().item<double>() < kFixedPointMax)) {
    finite_ = false;  // NaN compares false, too
    return;
  }
  p.sum.add_(wide.mul_(kFixedPointScale).round_().to(at::kLong));
}

void GradientSums::add(const WeightWorkList& work) {
  for (const auto& w : work) {
    switch (w.kind) {
      case WeightWork::Kind::kLinear:
        add(*w.parameter, at::mm(w.gradient.t(), w.input));
        break;
      case WeightWork::Kind::kReady:
        add(*w.parameter, w.gradient);
        break;
      case WeightWork::Kind::kTable: {
        at::Tensor rows = at::zeros(w.parameter->master.sizes(), w.parameter->master.options());
        add(*w.parameter, rows.index_add_(0, w.input, w.gradient.to(at::kFloat)));
        break;
      }
    }
  }
}

at::Tensor GradientSums::sum(const Parameter& p) const {
  if (p.sum.defined()) return p.sum.to(at::kCPU).contiguous();
  return at::zeros(p.master.sizes(), at::TensorOptions(fixed_point_ ? at::kLong : at::kFloat));
}

at::Tensor GradientSums::add(const std::vector<at::Tensor>& sums) const {
  at::Tensor total = sums.front().clone();
  for (std::size_t i = 1; i < sums.size(); ++i) total.add_(sums[i]);
  return fixed_point_ ? total.to(at::kDouble).mul_(1.0 / kFixedPointScale).to(at::kFloat) : total;
}

at::Tensor GradientSums::value(const Parameter& p) const {
  if (p.total.defined()) return p.total;
  if (!p.sum.defined()) return at::zeros_like(p.master);
  if (!fixed_point_) return p.sum;
  return p.sum.to(at::kDouble).mul_(1.0 / kFixedPointScale).to(at::kFloat);
}

void GradientSums::clear(std::vector<Parameter>& parameters) {
  for (auto& p : parameters) p.sum = p.total = at::Tensor();
  finite_ = true;
}

}  // namespace isthmus
