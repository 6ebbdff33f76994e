#include "model/weight_work.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "model/head_loss.h"
#include "spec/logits_slice.h"

namespace isthmus::model {

namespace {

constexpr double kFixedPointScale = 17592186044416.0;  // 2^44
constexpr double kFixedPointMax = 524288.0;            // 2^19

}  // namespace

void GradientSums::add(Parameter& p, const at::Tensor& gradient, std::int64_t first_row) {
  const bool whole = gradient.size(0) == p.master.size(0);
  if (!fixed_point_ && !p.sum.defined() && whole) {
    p.sum = gradient.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    return;
  }
  if (!p.sum.defined())
    p.sum = at::zeros(p.master.sizes(), p.master.options().dtype(fixed_point_ ? at::kLong : at::kFloat));
  at::Tensor sum = p.sum.narrow(0, first_row, gradient.size(0));
  if (!fixed_point_) {
    sum.add_(gradient);
    return;
  }
  const at::Tensor wide = gradient.to(at::kDouble);
  if (!(wide.abs().max().item<double>() < kFixedPointMax)) {
    finite_ = false;  // NaN compares false, too
    return;
  }
  sum.add_(wide.mul_(kFixedPointScale).round_().to(at::kLong));
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
      case WeightWork::Kind::kSlicedHead: {
        const std::int64_t all = w.parameter->master.size(0);
        const auto most = static_cast<std::int64_t>(
            spec::logits_rows(static_cast<std::uint64_t>(all), static_cast<std::uint64_t>(w.input.size(0))));
        for (std::int64_t first = 0; first < all; first += most)
          add(*w.parameter, head_gradient(w, first, std::min(most, all - first)), first);
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

}  // namespace isthmus::model
