#include "model/muon.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "base/counter_random.h"
#include "compress/subspace.h"
#include "model/torch.h"

namespace isthmus::model {
namespace {

at::Tensor normal(std::int64_t rows, std::int64_t columns, const char* name = "matrix") {
  const CounterRandom random(1, name);
  at::Tensor values = torch::empty({rows, columns});
  for (std::int64_t i = 0; i < values.numel(); ++i)
    values.data_ptr<float>()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
  return values;
}

at::Tensor basis(std::int64_t hidden, std::int64_t rank) {
  return torch::tensor(compress::subspace_basis(1, hidden, rank)).view({hidden, rank});
}

// Descending.
at::Tensor singular_values(const at::Tensor& matrix) {
  return std::get<1>(torch::linalg_svd(matrix.to(torch::kDouble)));
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

// The first `rank` singular values are near one, the others nothing.
void expect_orthogonal(const at::Tensor& matrix, std::int64_t rank, double dust) {
  const at::Tensor values = singular_values(matrix);
  EXPECT_LT(values[0].item<double>(), 1.3);
  EXPECT_GT(values[rank - 1].item<double>(), 0.6);
  if (rank < values.numel()) {
    EXPECT_LT(values[rank].item<double>(), dust);
  }
}

TEST(Muon, MakesAllSingularValuesAlike) {
  const std::pair<std::int64_t, std::int64_t> shapes[] = {{32, 48}, {48, 32}, {200, 16}, {4, 100},
                                                          {1, 30},  {30, 1},  {64, 66}};
  for (const auto& [rows, columns] : shapes)
    for (const double size : {1e-5, 1.0, 1e5})
      for (const auto arithmetic : {at::kFloat, at::kBFloat16}) {
        SCOPED_TRACE(::testing::Message() << rows << " x " << columns << " times " << size << " in " << arithmetic);
        const at::Tensor result = orthogonalized(normal(rows, columns) * size, arithmetic);
        ASSERT_EQ(result.sizes(), at::IntArrayRef({rows, columns}));
        ASSERT_EQ(result.scalar_type(), at::kFloat);
        expect_orthogonal(result, std::min(rows, columns), 0);
      }
}

TEST(Muon, KeepsDirectionsThatTheGradientDoesNotHaveEmpty) {
  for (const auto& [rows, columns] : {std::pair{40, 60}, {60, 40}}) {
    SCOPED_TRACE(rows);
    expect_orthogonal(orthogonalized(torch::mm(normal(rows, 5, "left"), normal(5, columns, "right")), at::kFloat), 5,
                      1e-3);
  }
}

TEST(Muon, KeepsTheSingularVectors) {
  const at::Tensor matrix = normal(20, 30);
  const auto [left, values, right] = torch::linalg_svd(matrix.to(torch::kDouble), false);
  const at::Tensor turned = left.t().mm(orthogonalized(matrix, at::kFloat).to(torch::kDouble)).mm(right.t());
  EXPECT_LT(largest_difference(turned, torch::diag(turned.diagonal())), 1e-4);
  EXPECT_GT(turned.diagonal().min().item<double>(), 0.6);
}

TEST(Muon, TakesAStepOfNothingForAGradientOfNothing) {
  for (const auto arithmetic : {at::kFloat, at::kBFloat16}) {
    EXPECT_EQ(orthogonalized(torch::zeros({5, 7}), arithmetic).abs().max().item<float>(), 0.0f);
    at::Tensor weight = normal(5, 7), momentum = torch::zeros({5, 7});
    muon_step(weight, momentum, torch::zeros({5, 7}), 0.1, 0.95, 0.5, arithmetic);
    EXPECT_LT(largest_difference(weight, normal(5, 7) * (1 - 0.1 * 0.5)), 1e-6);
  }
}

TEST(Muon, NeedsNothingOfItsOwnForAFactoredMatrix) {
  const at::Tensor u = basis(32, 6), a = normal(6, 40), full = torch::mm(u, a);
  const at::Tensor turned = orthogonalized(a, at::kFloat), wide = orthogonalized(full, at::kFloat);
  EXPECT_LT(largest_difference(torch::mm(u, turned), wide), 1e-4);
  EXPECT_LT(largest_difference(singular_values(turned), singular_values(torch::mm(u, turned)).narrow(0, 0, 6)), 1e-5);
  // And so a run that trains A is one that trains U·A.
  at::Tensor weight = a.clone(), momentum = torch::zeros_like(a), wide_weight = full.clone(),
             wide_momentum = torch::zeros_like(full);
  for (const char* step : {"first", "second", "third"}) {
    const at::Tensor gradient = normal(6, 40, step);
    muon_step(weight, momentum, gradient, 0.1, 0.95, 0.1, at::kFloat);
    muon_step(wide_weight, wide_momentum, torch::mm(u, gradient), 0.1, 0.95, 0.1, at::kFloat);
  }
  EXPECT_GT(largest_difference(weight, a), 0.1);
  EXPECT_LT(largest_difference(torch::mm(u, weight), wide_weight), 1e-4);
}

TEST(Muon, StepsAsFarAsAdamWDoes) {
  for (const auto& [rows, columns] : {std::pair{32, 96}, {96, 32}}) {
    at::Tensor weight = torch::zeros({rows, columns}), momentum = torch::zeros({rows, columns});
    muon_step(weight, momentum, normal(rows, columns) * 1e-3, 0.01, 0.95, 0.0, at::kFloat);
    EXPECT_NEAR(weight.square().mean().sqrt().item<double>(), 0.2 * 0.01, 0.2 * 0.01 * 0.2);
  }
}

}  // namespace
}  // namespace isthmus::model
