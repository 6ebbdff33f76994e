#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace isthmus {

// What every participant derives from the run's seed alone, the same bits on every machine: only IEEE 754 additions,
// multiplications, divisions and square roots, in a fixed order (Protocol Models, arXiv 2506.01260).

// U: hidden × rank, fp32, orthonormal columns. Random signs orthogonalised by modified Gram-Schmidt, twice, in double.
at::Tensor subspace_basis(std::uint64_t seed, std::int64_t hidden, std::int64_t rank);

// E: vocabulary × hidden, fp32, mean 0, deviation 0.02. The residual stream of a token starts from its row.
at::Tensor fixed_embedding(std::uint64_t seed, std::int64_t vocabulary, std::int64_t hidden);

}  // namespace isthmus
