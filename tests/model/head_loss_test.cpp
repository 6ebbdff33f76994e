#include "model/head_loss.h"

#include <gtest/gtest.h>

#include "model/torch.h"
#include "spec/logits_slice.h"

namespace isthmus::model {
namespace {

// 51 MB of logits: in slices of 41 rows, the last one shorter.
constexpr std::int64_t kTokens = 64, kManyIds = 200'000, kWidth = 8;
static_assert(spec::slices_logits(kTokens, kManyIds) && kTokens % spec::logits_rows(kTokens, kManyIds) != 0);

struct HeadCase {
  Parameter head;
  at::Tensor x, labels;

  explicit HeadCase(at::ScalarType type) {
    torch::manual_seed(3);
    head.master = torch::randn({kManyIds, kWidth});
    head.compute = head.master.to(type);
    x = torch::randn({kTokens, kWidth}).to(type);
    labels = torch::randint(kManyIds, {kTokens}, torch::kLong);
    labels[1] = labels[0];
    labels[2] = kManyIds - 1;
  }
};

struct Gradients {
  double loss;
  at::Tensor x, head;
};

Gradients sliced(HeadCase& c, bool fixed_point) {
  WeightWorkList work;
  const at::Tensor x = c.x.clone().requires_grad_(true);
  const at::Tensor loss = head_loss(x, c.head, c.labels, &work);
  torch::autograd::backward({loss}, {torch::full({}, 0.25)});
  GradientSums sums(fixed_point);
  const torch::NoGradGuard no_graph;
  sums.add(work);
  EXPECT_TRUE(sums.finite());
  return {loss.item<double>(), x.grad(), sums.value(c.head).clone()};
}

// By autograd, all logits at once, fp32.
Gradients whole(const HeadCase& c) {
  const at::Tensor x = c.x.to(torch::kFloat).clone().requires_grad_(true),
                   head = c.head.compute.to(torch::kFloat).clone().requires_grad_(true);
  const at::Tensor loss = at::cross_entropy_loss(torch::mm(x, head.t()), c.labels, {}, at::Reduction::Sum);
  torch::autograd::backward({loss}, {torch::full({}, 0.25)});
  return {loss.item<double>(), x.grad(), head.grad()};
}

double apart(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

TEST(HeadLoss, HasInSlicesTheGradientsOfTheWhole) {
  for (const bool fixed_point : {false, true}) {
    HeadCase c(torch::kFloat);
    const Gradients expected = whole(c), found = sliced(c, fixed_point);
    EXPECT_NEAR(found.loss, expected.loss, 1e-5 * expected.loss);
    EXPECT_LT(apart(found.x, expected.x), 1e-5);
    EXPECT_LT(apart(found.head, expected.head), 1e-5);
  }
  HeadCase c(torch::kBFloat16);
  const Gradients expected = whole(c), found = sliced(c, false);
  EXPECT_NEAR(found.loss, expected.loss, 1e-2 * expected.loss);
  EXPECT_LT(apart(found.x.to(torch::kFloat), expected.x), 2e-2);
  EXPECT_LT(apart(found.head, expected.head), 2e-2);
}

TEST(HeadLoss, IsTheSameWithAndWithoutGradients) {
  HeadCase c(torch::kFloat);
  EXPECT_EQ(head_loss(c.x, c.head, c.labels, nullptr).item<double>(), sliced(c, true).loss);
}

// What waits for its weight gradient is as large as the input, not as the logits.
TEST(HeadLoss, KeepsNoLogits) {
  HeadCase c(torch::kFloat);
  WeightWorkList work;
  const at::Tensor loss = head_loss(c.x.clone().requires_grad_(true), c.head, c.labels, &work);
  torch::autograd::backward({loss}, {torch::ones({})});
  ASSERT_EQ(work.size(), 1u);
  std::int64_t numbers = 0;
  for (const at::Tensor& kept : {work[0].input, work[0].gradient, work[0].labels, work[0].log_sums})
    numbers += kept.numel();
  EXPECT_EQ(numbers, kTokens * (kWidth + 2) + 1);
}

TEST(HeadLoss, IsNotCutWhereAllLogitsFit) {
  torch::manual_seed(3);
  Parameter head;
  head.master = head.compute = torch::randn({11, kWidth});
  WeightWorkList work;
  const at::Tensor loss = head_loss(torch::randn({kTokens, kWidth}).requires_grad_(true), head,
                                    torch::randint(11, {kTokens}, torch::kLong), &work);
  torch::autograd::backward({loss}, {torch::ones({})});
  ASSERT_EQ(work.size(), 1u);
  EXPECT_EQ(work[0].kind, WeightWork::Kind::kLinear);
}

}  // namespace
}  // namespace isthmus::model
