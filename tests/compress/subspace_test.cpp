#include "compress/subspace.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/token_ids.h"

namespace isthmus::compress {
namespace {

TEST(Subspace, HasOrthonormalColumnsAndTheSameBitsEveryTime) {
  const auto u = subspace_basis(1, 96, 17);
  for (std::size_t a = 0; a < 17; ++a)
    for (std::size_t b = 0; b < 17; ++b) {
      double dot = 0;
      for (std::size_t i = 0; i < 96; ++i) dot += double(u[i * 17 + a]) * u[i * 17 + b];
      EXPECT_NEAR(dot, a == b ? 1.0 : 0.0, 1e-6);
    }
  EXPECT_EQ(u, subspace_basis(1, 96, 17));
  EXPECT_NE(u, subspace_basis(2, 96, 17));
  // A wider basis begins with the narrower one: a run may raise its rank.
  const auto wider = subspace_basis(1, 96, 20);
  for (std::size_t i = 0; i < 96; ++i)
    for (std::size_t j = 0; j < 17; ++j) EXPECT_EQ(wider[i * 20 + j], u[i * 17 + j]);
}

TEST(TokenIds, ComeBackInEveryWidth) {
  const Bytes one = {0, 255, 3, 4}, two = {1, 2, 0, 1, 255, 0, 7, 0};
  EXPECT_EQ((*unpack_token_ids(one, 2, 1, 256))[1], 255);
  EXPECT_EQ((*unpack_token_ids(two, 2, 1, 1000))[0], 513);
}

TEST(TokenIds, AreRefusedBeyondTheVocabularyOrWithAnotherLength) {
  const Bytes ids = {0, 99, 3, 4};
  EXPECT_TRUE(unpack_token_ids(ids, 2, 1, 100));
  EXPECT_FALSE(unpack_token_ids(ids, 2, 1, 99));
  EXPECT_FALSE(unpack_token_ids(ByteView(ids).first(3), 2, 1, 100));
}

}  // namespace
}  // namespace isthmus::compress
