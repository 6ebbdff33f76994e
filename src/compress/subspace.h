#pragma once

#include <cstdint>
#include <vector>

namespace isthmus::compress {

// What every participant derives from the run's seed alone, the same bits on every machine: only IEEE 754 additions,
// multiplications, divisions and square roots, in a fixed order (Protocol Models, arXiv 2506.01260).

// U: hidden × rank, row-major, orthonormal columns. Random normals orthogonalised by modified Gram-Schmidt, twice, in
// double.
std::vector<float> subspace_basis(std::uint64_t seed, std::int64_t hidden, std::int64_t rank);

// E: vocabulary × hidden, row-major, mean 0, deviation 0.02. The residual stream of a token starts from its row.
std::vector<float> fixed_embedding(std::uint64_t seed, std::int64_t vocabulary, std::int64_t hidden);

}  // namespace isthmus::compress
