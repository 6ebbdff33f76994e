#include "compress/boundary_codec.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/counter_random.h"
#include "compress/subspace.h"
#include "compress/token_ids.h"

namespace isthmus {
namespace {

at::Tensor values(std::int64_t tokens, std::int64_t columns) {
  const CounterRandom random(3, "values");
  at::Tensor t = at::empty({tokens, columns}, at::kFloat);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data_ptr<float>()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
  return t;
}

// What every codec has to do.
class BoundaryCodecContract : public ::testing::TestWithParam<const char*> {
 protected:
  const std::unique_ptr<BoundaryCodec> codec_ = make_boundary_codec(GetParam());
};

TEST_P(BoundaryCodecContract, ComesBackWithinItsErrorBound) {
  for (const auto& [tokens, columns] : {std::pair(7, 5), std::pair(1, 1), std::pair(128, 41)}) {
    const at::Tensor in = values(tokens, columns);
    const auto out = codec_->decode(codec_->encode(in), tokens, columns);
    ASSERT_TRUE(out);
    EXPECT_TRUE(((*out - in).abs() <= in.abs() * codec_->error_bound()).all().item<bool>());
    EXPECT_EQ(out->sizes(), in.sizes());
  }
}

TEST_P(BoundaryCodecContract, CountsItsBytesExactly) {
  for (const auto& [tokens, columns] : {std::pair(7, 5), std::pair(0, 5), std::pair(3, 0), std::pair(64, 64)})
    EXPECT_EQ(codec_->encode(values(tokens, columns)).size(), codec_->bytes(tokens, columns));
}

TEST_P(BoundaryCodecContract, TakesTensorsThatAreNotContiguous) {
  const at::Tensor in = values(6, 4).t();
  EXPECT_EQ(codec_->encode(in), codec_->encode(in.contiguous()));
}

TEST_P(BoundaryCodecContract, PassesNonFiniteValuesOn) {
  at::Tensor in = values(2, 2);
  in[0][0] = std::numeric_limits<float>::quiet_NaN();
  in[1][1] = std::numeric_limits<float>::infinity();
  const auto out = codec_->decode(codec_->encode(in), 2, 2);
  ASSERT_TRUE(out);
  EXPECT_FALSE((*out).isfinite()[0][0].item<bool>());
  EXPECT_FALSE((*out).isfinite()[1][1].item<bool>());
  EXPECT_TRUE((*out).isfinite()[0][1].item<bool>());
}

TEST_P(BoundaryCodecContract, RefusesAnyOtherLength) {
  const Bytes good = codec_->encode(values(8, 4));
  for (std::size_t length = 0; length < good.size(); ++length) EXPECT_FALSE(codec_->decode(ByteView(good).first(length), 8, 4));
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_FALSE(codec_->decode(longer, 8, 4));
  EXPECT_FALSE(codec_->decode(good, 4, 4));
}

TEST_P(BoundaryCodecContract, IsDeterministic) { EXPECT_EQ(codec_->encode(values(9, 9)), codec_->encode(values(9, 9))); }

TEST_P(BoundaryCodecContract, KeepsTheDirectionOfAGradient) {
  const at::Tensor in = values(100, 16);
  const at::Tensor out = *codec_->decode(codec_->encode(in), 100, 16);
  EXPECT_GT((in * out).sum().item<double>() / (in.norm().item<double>() * out.norm().item<double>()), 0.9999);
}

INSTANTIATE_TEST_SUITE_P(All, BoundaryCodecContract, ::testing::Values("fp32", "bf16"));

TEST(Subspace, HasOrthonormalColumnsAndTheSameBitsEveryTime) {
  const at::Tensor u = subspace_basis(1, 96, 17);
  EXPECT_LT((at::mm(u.t(), u) - at::eye(17)).abs().max().item<double>(), 1e-6);
  EXPECT_TRUE(at::equal(u, subspace_basis(1, 96, 17)));
  EXPECT_FALSE(at::equal(u, subspace_basis(2, 96, 17)));
  // A wider basis begins with the narrower one: a run may raise its rank.
  EXPECT_TRUE(at::equal(u, subspace_basis(1, 96, 20).narrow(1, 0, 17)));
}

TEST(TokenIds, ComeBackInEveryWidth) {
  const Bytes one = {0, 255, 3, 4}, two = {1, 2, 0, 1, 255, 0, 7, 0};
  EXPECT_EQ((*unpack_token_ids(one, 2, 1, 256))[0][1].item<std::int64_t>(), 255);
  EXPECT_EQ((*unpack_token_ids(two, 2, 1, 1000))[0][0].item<std::int64_t>(), 513);
}

TEST(TokenIds, AreRefusedBeyondTheVocabularyOrWithAnotherLength) {
  const Bytes ids = {0, 99, 3, 4};
  EXPECT_TRUE(unpack_token_ids(ids, 2, 1, 100));
  EXPECT_FALSE(unpack_token_ids(ids, 2, 1, 99));
  EXPECT_FALSE(unpack_token_ids(ByteView(ids).first(3), 2, 1, 100));
}

}  // namespace
}  // namespace isthmus
