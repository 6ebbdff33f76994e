#include "model/stage_model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "compress/subspace.h"
#include "model/arithmetic.h"
#include "model/head_loss.h"

namespace isthmus::model {

namespace {

using Kind = spec::TensorSpec::Kind;
using Border = spec::BoundaryForm::Border;

// The order of stage_tensors().
enum LayerPart : std::size_t { kAttentionNorm, kQkv, kAttentionOut, kMlpNorm, kGateUp, kDown, kPartsPerLayer };

at::Tensor as_matrix(const std::vector<float>& values, std::int64_t rows, std::int64_t columns) {
  return at::from_blob(const_cast<float*>(values.data()), {rows, columns}, at::kFloat).clone();
}

}  // namespace

StageModel::StageModel(const spec::RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer)
    : run_(run),
      form_(spec::boundary_form(run.boundary.codec)),
      first_layer_(first_layer),
      end_layer_(end_layer),
      compute_(arithmetic(run)),
      parameters_(make_parameters(run, first_layer, end_layer)) {
  const auto& m = run.model;
  const auto norm = std::ranges::find(parameters_, Kind::kNorm, [](const Parameter& p) { return p.spec.kind; });
  first_of_layers_ = static_cast<std::size_t>(norm - parameters_.begin());
  for (auto& p : parameters_) {
    if (p.spec.kind == Kind::kBasis) own_basis_ = &p;
    if (p.spec.kind == Kind::kEncoder) encoder_ = &p;
    if (p.spec.kind == Kind::kDecoder) decoder_ = &p;
  }
  if (form_.border == Border::kFixed || (form_.coefficients && !form_.private_basis)) {
    wide_basis_ =
        as_matrix(compress::subspace_basis(run.run.seed, m.hidden, run.boundary.rank), m.hidden, run.boundary.rank)
            .to(device());
    basis_ = wide_basis_.to(compute_);
  }
  if (form_.fixed_base)
    embedding_ = as_matrix(compress::fixed_embedding(run.run.seed, m.vocabulary, m.hidden), m.vocabulary, m.hidden)
                     .to(device(), compute_);
  rotary_ = rotary_tables(m.context, m.hidden / m.heads, at::empty({0}, at::TensorOptions(device()).dtype(compute_)));
  settle();
}

at::Device StageModel::device() const { return parameters_.front().master.device(); }

Parameter& StageModel::find(const std::string& name) {
  return *std::ranges::find(parameters_, name, [](const Parameter& p) { return p.name; });
}

Parameter& StageModel::of_layer(std::size_t layer, std::size_t which) {
  return parameters_[first_of_layers_ + (layer - first_layer_) * kPartsPerLayer + which];
}

void StageModel::settle() {
  const at::NoGradGuard no_graph;
  for (auto& p : parameters_) {
    if (p.spec.in_subspace == spec::TensorSpec::InSubspace::kColumns)
      p.master.copy_(at::mm(wide_basis_, at::mm(wide_basis_.t(), p.master)));
    if (p.spec.in_subspace == spec::TensorSpec::InSubspace::kRows)
      p.master.copy_(at::mm(at::mm(p.master, wide_basis_), wide_basis_.t()));
  }
  // The nearest point of the Stiefel manifold along the step: the Q of QR, with the signs that keep R's diagonal
  // positive.
  if (form_.border == Border::kOrthonormal)
    for (Parameter* p : {encoder_, decoder_})
      if (p) {
        const auto [q, r] = at::linalg_qr(p->master);
        p->master.copy_(q * at::where(r.diagonal() < 0, -1.0, 1.0));
      }
  refresh_compute_copies(parameters_);
}

at::Tensor StageModel::token_path(const at::Tensor& ids, const at::Tensor& anchor, WeightWorkList* work) {
  const auto& m = run_.model;
  if (m.token_path == "none" || has_embedding()) return {};
  const std::string unit = fmt::format("token_path.{}.", first_layer_);
  const std::int64_t sequences = ids.size(0), context = m.context;
  const at::Tensor tokens = ids.narrow(1, 0, context).reshape({-1});
  const at::Tensor rows = table_rows(anchor, tokens, find(unit + "table"), work);
  if (m.token_path == "table") return rows;
  // The j-th of the window's tokens is j places back; before the sequence there is nothing.
  const at::Tensor each = rows.to(compute_).view({sequences, context, -1});
  std::vector<at::Tensor> window;
  for (std::int64_t back = 0; back < m.token_window; ++back) {
    const std::int64_t missing = std::min(back, context);
    window.push_back(missing == 0 ? each
                                  : at::constant_pad_nd(each.narrow(1, 0, context - missing), {0, 0, missing, 0}));
  }
  const at::Tensor seen = at::cat(window, -1).view({sequences * context, -1});
  return linear(at::gelu(linear(seen, find(unit + "in"), work), "tanh"), find(unit + "out"), work);
}

at::Tensor StageModel::base(const at::Tensor& ids, const at::Tensor& anchor, WeightWorkList* work) {
  at::Tensor base = token_path(ids, anchor, work);
  if (base.defined()) base = base.to(compute_);
  if (!form_.fixed_base) return base;
  const at::Tensor fixed = fixed_rows(ids);
  return base.defined() ? base + fixed : fixed;
}

at::Tensor StageModel::fixed_rows(const at::Tensor& ids) const {
  return embedding_.index_select(0, ids.narrow(1, 0, run_.model.context).reshape({-1}));
}

at::Tensor StageModel::read_table(const at::Tensor& ids, const at::Tensor& anchor, WeightWorkList* work) {
  return table_rows(anchor, ids.narrow(1, 0, run_.model.context).reshape({-1}), parameters_.front(), work);
}

at::Tensor StageModel::residual(const at::Tensor& base, const at::Tensor& z, WeightWorkList* work) {
  if (own_basis_) return base + linear(z.to(compute_), *own_basis_, work);
  return at::addmm(base, z.to(compute_), basis_.t());
}

at::Tensor StageModel::narrowed(const at::Tensor& base, const at::Tensor& x, WeightWorkList* work) {
  if (form_.border == Border::kNone) return x;
  const at::Tensor rest = form_.fixed_base ? x - base.to(at::kFloat) : x;
  return encoder_ ? linear_transposed(rest, *encoder_, work) : at::mm(rest, wide_basis_);
}

at::Tensor StageModel::widened(const at::Tensor& base, const at::Tensor& input, WeightWorkList* work) {
  at::Tensor x = input;
  if (form_.border != Border::kNone) x = decoder_ ? linear(input, *decoder_, work) : at::mm(input, wide_basis_.t());
  return base.defined() ? x + base.to(at::kFloat) : x;
}

at::Tensor StageModel::attention_part(std::size_t layer, const at::Tensor& x, WeightWorkList* work) {
  const at::Tensor normed = rms_norm(x, of_layer(layer, kAttentionNorm), compute_, work);
  const at::Tensor mixed =
      attention(linear(normed, of_layer(layer, kQkv), work), x.size(0) / run_.model.context, run_.model.heads, rotary_);
  return linear(mixed, of_layer(layer, kAttentionOut), work).to(at::kFloat);
}

at::Tensor StageModel::mlp_part(std::size_t layer, const at::Tensor& x, WeightWorkList* work) {
  const at::Tensor normed = rms_norm(x, of_layer(layer, kMlpNorm), compute_, work);
  return linear(swiglu(linear(normed, of_layer(layer, kGateUp), work)), of_layer(layer, kDown), work).to(at::kFloat);
}

at::Tensor StageModel::run_layer(std::uint32_t l, bool is_z, const at::Tensor& base, const at::Tensor& stream,
                                 WeightWorkList* work) {
  const at::Tensor mixed = stream + attention_part(l, is_z ? residual(base, stream, work) : stream, work);
  return mixed + mlp_part(l, is_z ? residual(base, mixed, work) : mixed, work);
}

at::Tensor StageModel::run_layers(const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work) {
  const at::Tensor base = this->base(ids, input, work);
  at::Tensor stream;
  // `stream` is z up to the last factored layer and x from there on.
  bool is_z = form_.coefficients;
  if (has_embedding()) {
    stream = read_table(ids, input, work);
    if (form_.fixed_base && !is_z) stream = stream + base.to(at::kFloat);
  } else {
    stream = is_z ? input : widened(base, input, work);
  }
  for (std::uint32_t l = first_layer_; l < end_layer_; ++l) {
    if (is_z && !is_factored(l)) {
      stream = residual(base, stream, work).to(at::kFloat);
      is_z = false;
    }
    stream = run_layer(l, is_z, base, stream, work);
  }
  if (has_head()) return is_z ? residual(base, stream, work).to(at::kFloat) : stream;
  return is_z ? stream : narrowed(base, stream, work);
}

at::Tensor StageModel::logits(const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work) {
  return linear(head_input(run_layers(ids, input, work), work), find("head.matrix"), work);
}

at::Tensor StageModel::head_input(const at::Tensor& x, WeightWorkList* work) {
  return rms_norm(x, find("head.norm"), compute_, work);
}

at::Tensor StageModel::loss(const at::Tensor& ids, const at::Tensor& x, WeightWorkList* work) {
  const at::Tensor labels = ids.narrow(1, 1, run_.model.context).reshape({-1});
  return head_loss(head_input(x, work), find("head.matrix"), labels, work);
}

std::int64_t StageModel::columns_alone(Unit unit) const {
  if (unit == Unit::kEmbedding) return 1;
  return unit == Unit::kLayer && is_factored(first_layer_) ? run_.boundary.rank : run_.model.hidden;
}

at::Tensor StageModel::alone(Unit unit, const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work) {
  if (unit == Unit::kEmbedding) return read_table(ids, input, work);
  if (unit == Unit::kHead) return loss(ids, input, work);
  const bool is_z = is_factored(first_layer_);
  return run_layer(first_layer_, is_z, is_z ? fixed_rows(ids) : at::Tensor(), input, work);
}

at::Tensor StageModel::forward(const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work) {
  if (!has_head()) return run_layers(ids, input, work);
  return loss(ids, run_layers(ids, input, work), work);
}

}  // namespace isthmus::model
