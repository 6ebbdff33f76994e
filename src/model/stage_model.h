#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "model/layers.h"
#include "model/parameter.h"
#include "model/weight_work.h"
#include "spec/boundary_form.h"
#include "spec/run_config.h"

namespace isthmus::model {

// The layers of one stage, in the form that boundary.codec gives the model (spec/boundary_form.h). The residual
// stream is x (tokens × hidden), or, in the coefficient forms below `factored_layers`, z (tokens × rank) with
// x = base + U·z. x is then made from z anew for every attention and every MLP, so cutting a model without a token path
// between two layers changes no bit.
//
// base = E[token] + what the stage's token path makes of the last tokens. The token path is the stage's own: what
// crosses a boundary is x or z without it, or, in an ordinary model, which has no base, x with it.
//
// What crosses is z, x, or the `rank` numbers that a border makes of x; fp32. One thread.
class StageModel {
 public:
  StageModel(const spec::RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer);
  // A copy would point at the original's parameters.
  StageModel(StageModel&&) = default;
  StageModel(const StageModel&) = delete;

  bool has_embedding() const { return first_layer_ == 0; }
  bool has_head() const { return end_layer_ == run_.model.layers; }

  // ids: sequences × (context + 1), int64, on the device. `input`: what came over the boundary, or, at the head stage,
  // any leaf that requires gradients (see table_rows). Result: what goes over the next boundary, or, at the tail, the
  // sum of the cross entropies (a scalar). Weight gradients go to `work`; null for evaluation.
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work);
  // Tail only: rows × vocabulary, without the loss.
  at::Tensor logits(const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work);

  // A part of the stage by itself, to see what it costs: its first layer, the table of the first stage, or norm, matrix
  // and loss of the last one. `input`: tokens × columns_alone(unit).
  enum class Unit { kLayer, kEmbedding, kHead };
  std::int64_t columns_alone(Unit unit) const;
  at::Tensor alone(Unit unit, const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work);

  std::vector<Parameter>& parameters() { return parameters_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  at::Device device() const;

  // Puts what has to stay in a subspace, or orthonormal, back there, and refreshes the compute copies. After every
  // change of the masters.
  void settle();

 private:
  Parameter& find(const std::string& name);
  Parameter& of_layer(std::size_t layer, std::size_t which);
  // Base of every token of the microbatch, tokens × hidden, compute type; undefined where there is none.
  at::Tensor base(const at::Tensor& ids, const at::Tensor& anchor, WeightWorkList* work);
  at::Tensor token_path(const at::Tensor& ids, const at::Tensor& anchor, WeightWorkList* work);
  // base + U·z, compute type.
  at::Tensor residual(const at::Tensor& base, const at::Tensor& z, WeightWorkList* work);
  // What crosses the boundary behind this stage, of the full-width stream.
  at::Tensor narrowed(const at::Tensor& base, const at::Tensor& x, WeightWorkList* work);
  // And the full-width stream, of what crossed the one before.
  at::Tensor widened(const at::Tensor& base, const at::Tensor& input, WeightWorkList* work);
  at::Tensor run_layers(const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work);
  at::Tensor run_layer(std::uint32_t layer, bool is_z, const at::Tensor& base, const at::Tensor& stream,
                       WeightWorkList* work);
  // What the head's matrix meets.
  at::Tensor head_input(const at::Tensor& x, WeightWorkList* work);
  at::Tensor loss(const at::Tensor& ids, const at::Tensor& x, WeightWorkList* work);
  at::Tensor read_table(const at::Tensor& ids, const at::Tensor& anchor, WeightWorkList* work);
  bool is_factored(std::uint32_t layer) const { return form_.coefficients && layer < *run_.boundary.factored_layers; }
  at::Tensor fixed_rows(const at::Tensor& ids) const;
  at::Tensor attention_part(std::size_t layer, const at::Tensor& x, WeightWorkList* work);
  at::Tensor mlp_part(std::size_t layer, const at::Tensor& x, WeightWorkList* work);

  const spec::RunConfig run_;
  const spec::BoundaryForm form_;
  const std::uint32_t first_layer_;
  const std::uint32_t end_layer_;
  const at::ScalarType compute_;
  std::vector<Parameter> parameters_;
  std::size_t first_of_layers_;     // index of the first layer's first parameter
  Parameter* own_basis_ = nullptr;  // narrow
  Parameter* encoder_ = nullptr;    // bottleneck, learned
  Parameter* decoder_ = nullptr;
  at::Tensor basis_;       // U, hidden × rank, compute type; the forms with a fixed one
  at::Tensor wide_basis_;  // U, fp32
  at::Tensor embedding_;   // E, vocabulary × hidden, compute type
  RotaryTables rotary_;
};

}  // namespace isthmus::model
