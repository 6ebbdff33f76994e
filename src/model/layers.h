#pragma once

#include <ATen/core/Tensor.h>

#include "model/parameter.h"
#include "model/weight_work.h"

namespace isthmus::model {

// Differentiable pieces of the decoder. Parameters are no autograd leaves: backward returns the gradient of the input
// only and leaves the weight's share in `work` (null: no gradients are wanted). Rows are tokens; fp32 or bf16 as the
// parameter's compute copy is.

// rows × in → rows × out.
at::Tensor linear(const at::Tensor& input, Parameter& weight, WeightWorkList* work);
// rows × out → rows × in: the same matrix, from its other side.
at::Tensor linear_transposed(const at::Tensor& input, Parameter& weight, WeightWorkList* work);
// RMSNorm, ε = 1e-5 (Zhang and Sennrich, 2019), computed in fp32; the result has type `out`.
at::Tensor rms_norm(const at::Tensor& input, Parameter& weight, at::ScalarType out, WeightWorkList* work);
// silu(gate) · up of a rows × 2·n tensor (SwiGLU, Shazeer 2020).
at::Tensor swiglu(const at::Tensor& gate_up);
// Rows of a learned table. `anchor` is any leaf that requires gradients; it gets none, but without one autograd would
// not come here.
at::Tensor table_rows(const at::Tensor& anchor, const at::Tensor& ids, Parameter& table, WeightWorkList* work);

// cos and sin of rotary embedding (θ = 10000, rotate-half), context × head width, on the device of `like`.
struct RotaryTables {
  at::Tensor cos;
  at::Tensor sin;
};
RotaryTables rotary_tables(std::int64_t context, std::int64_t head_width, const at::Tensor& like);

// Causal attention of `sequences` sequences; qkv is rows × 3·hidden. Result rows × hidden.
at::Tensor attention(const at::Tensor& qkv, std::int64_t sequences, std::int64_t heads, const RotaryTables& rotary);

// Sum of cross entropies over rows, fp32. logits: rows × vocabulary; labels: rows, int64.
at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& labels);

}  // namespace isthmus::model
