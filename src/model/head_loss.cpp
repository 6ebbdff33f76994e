#include "model/head_loss.h"

#include <algorithm>

#include "model/deferred_weight.h"
#include "model/layers.h"
#include "model/torch.h"
#include "spec/logits_slice.h"

namespace isthmus::model {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Log probabilities of a slice's tokens, fp32, and what softmax divided each token's by.
struct SliceLogits {
  at::Tensor log_probabilities;  // rows × vocabulary
  at::Tensor labelled;           // rows: of the label
  at::Tensor log_sums;           // rows
};

SliceLogits slice_logits(const at::Tensor& x, const at::Tensor& matrix, const at::Tensor& labels) {
  const at::Tensor logits = at::mm(x, matrix.t()).to(at::kFloat), at = labels.unsqueeze(1);
  SliceLogits slice;
  slice.log_probabilities = at::log_softmax(logits, 1);
  slice.labelled = slice.log_probabilities.gather(1, at).squeeze(1);
  slice.log_sums = logits.gather(1, at).squeeze(1) - slice.labelled;
  return slice;
}

template <class Visit>
void for_each_slice(const at::Tensor& x, const at::Tensor& matrix, Visit&& visit) {
  const std::int64_t rows = x.size(0);
  const auto most = static_cast<std::int64_t>(
      spec::logits_rows(static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(matrix.size(0))));
  for (std::int64_t at = 0; at < rows; at += most) visit(at, std::min(most, rows - at));
}

struct SlicedHeadLoss : torch::autograd::Function<SlicedHeadLoss> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& labels, std::int64_t parameter,
                            std::int64_t work) {
    auto& head = *reinterpret_cast<Parameter*>(parameter);
    at::Tensor labelled = at::empty({x.size(0)}, x.options().dtype(at::kFloat)), log_sums = at::empty_like(labelled),
               gradient = at::empty_like(x);
    for_each_slice(x, head.compute, [&](std::int64_t at, std::int64_t rows) {
      SliceLogits slice = slice_logits(x.narrow(0, at, rows), head.compute, labels.narrow(0, at, rows));
      labelled.narrow(0, at, rows).copy_(slice.labelled);
      log_sums.narrow(0, at, rows).copy_(slice.log_sums);
      at::Tensor errors = slice.log_probabilities.exp_();
      errors.scatter_add_(1, labels.narrow(0, at, rows).unsqueeze(1), at::full({rows, 1}, -1.0, errors.options()));
      gradient.narrow(0, at, rows).copy_(at::mm(errors.to(x.scalar_type()), head.compute));
    });
    ctx->save_for_backward({x, labels, log_sums, gradient});
    remember(ctx, head, reinterpret_cast<WeightWorkList*>(work));
    return labelled.sum().neg();
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    leave(ctx, {.kind = WeightWork::Kind::kSlicedHead,
                .input = saved[0],
                .gradient = gradients[0],
                .labels = saved[1],
                .log_sums = saved[2]});
    return {saved[3] * gradients[0], {}, {}, {}};
  }
};

}  // namespace

at::Tensor head_loss(const at::Tensor& x, Parameter& head, const at::Tensor& labels, WeightWorkList* work) {
  const bool sliced =
      spec::slices_logits(static_cast<std::uint64_t>(x.size(0)), static_cast<std::uint64_t>(head.compute.size(0)));
  if (!sliced) return cross_entropy_sum(linear(x, head, work), labels);
  if (work) return SlicedHeadLoss::apply(x, labels, as_number(&head), as_number(work));
  at::Tensor labelled = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
  for_each_slice(x, head.compute, [&](std::int64_t at, std::int64_t rows) {
    labelled.narrow(0, at, rows)
        .copy_(slice_logits(x.narrow(0, at, rows), head.compute, labels.narrow(0, at, rows)).labelled);
  });
  return labelled.sum().neg();
}

at::Tensor head_gradient(const WeightWork& work, std::int64_t first, std::int64_t rows) {
  const at::Tensor matrix = work.parameter->compute.narrow(0, first, rows);
  at::Tensor errors = at::mm(work.input, matrix.t()).to(at::kFloat).sub_(work.log_sums.unsqueeze(1)).exp_();
  const at::Tensor here = work.labels.ge(first).logical_and_(work.labels.lt(first + rows)).nonzero().squeeze(1);
  const at::Tensor columns = work.labels.index_select(0, here).sub_(first);
  // A row has one label: no place is met twice.
  errors.index_put_({here, columns}, at::full({1}, -1.0, errors.options()), /*accumulate=*/true);
  return at::mm(errors.to(work.input.scalar_type()).t(), work.input) * work.gradient;
}

}  // namespace isthmus::model
