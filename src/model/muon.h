#pragma once

#include <ATen/core/Tensor.h>

namespace isthmus::model {

// Muon (K. Jordan et al., 2024): the momentum's nearest matrix with equal singular values, so that a step moves every
// direction alike.

// Five Newton-Schulz iterations in the gradient's type or bf16, whichever `arithmetic` is: singular values end between
// 0.7 and 1.2. Rows × columns in and out, fp32.
at::Tensor orthogonalized(const at::Tensor& matrix, at::ScalarType arithmetic);

// Updates `weight` and `momentum` by one step with Nesterov momentum and decoupled weight decay. The update has the
// root mean square of AdamW's, 0.2 · sqrt(max(rows, columns)) times the orthogonal matrix (J. Liu et al., arXiv
// 2502.16982), so one learning rate serves both. U (d × k) is orthonormal, so a factored matrix A (k × n) has the
// singular values of U·A and takes the same step, unless an MLP is narrower than the stream (n < d).
void muon_step(const at::Tensor& weight, const at::Tensor& momentum, const at::Tensor& gradient, double learning_rate,
               double momentum_share, double decay, at::ScalarType arithmetic);

}  // namespace isthmus::model
