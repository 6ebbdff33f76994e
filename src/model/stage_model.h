#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/run_config.h"
#include "model/layers.h"
#include "model/parameter.h"
#include "model/weight_work.h"

namespace isthmus {

// The layers of one stage. Two forms of the residual stream:
//
// subspace: x = E[token] + U·z, and what a layer below `factored_layers` writes is z += A·f(norm(x)). x is always
//   made from z anew, so cutting the model between two layers changes no bit. Layers above write into x itself.
// dense: x starts from a learned embedding and every layer writes into it.
//
// What crosses a boundary is z (tokens × rank) or x (tokens × hidden), fp32. One thread.
class StageModel {
 public:
  StageModel(const RunConfig& run, std::uint32_t first_layer, std::uint32_t end_layer);

  bool has_embedding() const { return first_layer_ == 0; }
  bool has_head() const { return end_layer_ == run_.model.layers; }

  // ids: sequences × (context + 1), int64, on the device. `input`: what came over the boundary, or, at the head stage,
  // any leaf that requires gradients (see table_rows). Result: what goes over the next boundary, or, at the tail, the
  // sum of the cross entropies (a scalar). Weight gradients go to `work`; null for evaluation.
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work);
  // Tail only: rows × vocabulary, without the loss.
  at::Tensor logits(const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work);

  std::vector<Parameter>& parameters() { return parameters_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  at::Device device() const;

 private:
  at::Tensor residual(const at::Tensor& base, const at::Tensor& z) const;
  at::Tensor run_layers(const at::Tensor& ids, const at::Tensor& input, WeightWorkList* work);
  at::Tensor attention_part(std::size_t layer, const at::Tensor& x, WeightWorkList* work);
  at::Tensor mlp_part(std::size_t layer, const at::Tensor& x, WeightWorkList* work);
  Parameter& of_layer(std::size_t layer, std::size_t which);

  const RunConfig run_;
  const std::uint32_t first_layer_;
  const std::uint32_t end_layer_;
  const bool subspace_;
  const at::ScalarType compute_;
  std::vector<Parameter> parameters_;
  at::Tensor basis_;      // U, hidden × rank, compute type
  at::Tensor embedding_;  // E, vocabulary × hidden, compute type
  RotaryTables rotary_;
};

}  // namespace isthmus
