#include "compress/subspace.h"

#include <cmath>

#include "base/counter_random.h"

namespace isthmus::compress {

namespace {

double dot(const double* a, const double* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

std::vector<float> subspace_basis(std::uint64_t seed, std::int64_t hidden, std::int64_t rank) {
  const CounterRandom random(seed, "subspace basis");
  std::vector<double> columns(static_cast<std::size_t>(hidden * rank));
  for (std::int64_t j = 0; j < rank; ++j) {
    double* column = columns.data() + j * hidden;
    for (std::int64_t i = 0; i < hidden; ++i) column[i] = random.normal(static_cast<std::uint64_t>(j * hidden + i));
    for (int pass = 0; pass < 2; ++pass)
      for (std::int64_t before = 0; before < j; ++before) {
        const double* other = columns.data() + before * hidden;
        const double share = dot(column, other, hidden);
        for (std::int64_t i = 0; i < hidden; ++i) column[i] -= share * other[i];
      }
    const double norm = std::sqrt(dot(column, column, hidden));
    for (std::int64_t i = 0; i < hidden; ++i) column[i] /= norm;
  }
  std::vector<float> basis(columns.size());
  for (std::int64_t i = 0; i < hidden; ++i)
    for (std::int64_t j = 0; j < rank; ++j)
      basis[static_cast<std::size_t>(i * rank + j)] =
          static_cast<float>(columns[static_cast<std::size_t>(j * hidden + i)]);
  return basis;
}

std::vector<float> fixed_embedding(std::uint64_t seed, std::int64_t vocabulary, std::int64_t hidden) {
  const CounterRandom random(seed, "fixed embedding");
  std::vector<float> table(static_cast<std::size_t>(vocabulary * hidden));
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(0.02 * random.normal(i));
  return table;
}

}  // namespace isthmus::compress
