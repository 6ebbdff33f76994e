#include "model/stage_model.h"

#include <ATen/ATen.h>

#include "compress/subspace.h"

namespace isthmus {

namespace {

// The order of make_parameters().
enum LayerPart : std::size_t { kAttentionNorm, kQkv, kAttentionOut, kMlpNorm, kGateUp, kDown, kPartsPerLayer };

}  // namespace

StageModel::StageModel(const RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer)
    : run_(run),
      first_layer_(first_layer),
      end_layer_(end_layer),
      subspace_(run.boundary.codec == "subspace"),
      compute_(run.train.precision == "bf16" ? at::kBFloat16 : at::kFloat),
      parameters_(make_parameters(run, first_layer, end_layer)) {
  if (subspace_) {
    basis_ = subspace_basis(run.run.seed, run.model.hidden, run.boundary.rank).to(device(), compute_);
    embedding_ = fixed_embedding(run.run.seed, run.model.vocabulary, run.model.hidden).to(device(), compute_);
  }
  rotary_ = rotary_tables(run.model.context, run.model.hidden / run.model.heads, at::empty({0}, at::TensorOptions(device()).dtype(compute_)));
}

at::Device StageModel::device() const { return parameters_.front().master.device(); }

Parameter& StageModel::of_layer(std::size_t layer, std::size_t which) {
  return parameters_[(has_embedding() ? 1 : 0) + (layer - first_layer_) * kPartsPerLayer + which];
}

// E[token] + U·z, tokens × hidden, compute type.
at::Tensor StageModel::residual(const at::Tensor& base, const at::Tensor& z) const {
  return at::addmm(base, z.to(compute_), basis_.t());
}

at::Tensor StageModel::attention_part(std::size_t layer, const at::Tensor& x, WeightWorkList* work) {
  const at::Tensor normed = rms_norm(x, of_layer(layer, kAttentionNorm), compute_, work);
  const at::Tensor mixed = attention(linear(normed, of_layer(layer, kQkv), work), x.size(0) / run_.model.context, run_.model.heads, rotary_);
  return linear(mixed, of_layer(layer, kAttentionOut), work).to(at::kFloat);
}

at::Tensor StageModel::mlp_part(std::size_t layer, const at::Tensor& x, WeightWorkList* work) {
  const at::Tensor normed = rms_norm(x, of_layer(layer, kMlpNorm), compute_, work);
  return linear(swiglu(linear(normed, of_layer(layer, kGateUp), work)), of_layer(layer, kDown), work).to(at::kFloat);
}

at::Tensor StageModel::run_layers(const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work) {
  const at::Tensor tokens = ids.narrow(1, 0, run_.model.context).reshape({-1});
  at::Tensor stream = has_embedding() ? table_rows(input, tokens, parameters_.front(), work) : input;
  const at::Tensor base = subspace_ ? embedding_.index_select(0, tokens) : at::Tensor();
  // `stream` is z up to the last factored layer and x from there on.
  const std::uint32_t factored = subspace_ ? *run_.boundary.factored_layers : 0;
  const auto widened = [&] { return residual(base, stream).to(at::kFloat); };
  bool is_z = subspace_;
  for (std::uint32_t l = first_layer_; l < end_layer_; ++l) {
    if (is_z && l >= factored) {
      stream = widened();
      is_z = false;
    }
    stream = stream + attention_part(l, is_z ? residual(base, stream) : stream, work);
    stream = stream + mlp_part(l, is_z ? residual(base, stream) : stream, work);
  }
  if (is_z && has_head()) stream = widened();
  return stream;
}

at::Tensor StageModel::logits(const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work) {
  const std::size_t head = parameters_.size() - 2;
  return linear(rms_norm(run_layers(ids, input, work), parameters_[head], compute_, work), parameters_[head + 1], work);
}

at::Tensor StageModel::forward(const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work) {
  if (!has_head()) return run_layers(ids, input, work);
  const at::Tensor labels = ids.narrow(1, 1, run_.model.context).reshape({-1});
  return cross_entropy_sum(logits(ids, input, work), labels);
}

}  // namespace isthmus
