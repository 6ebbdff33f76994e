#include "compress/encoded_tensor.h"

#include <gtest/gtest.h>

namespace isthmus::compress {
namespace {

EncodedTensor sealed() {
  EncodedTensor tensor{share(Bytes{1, 2, 3}), share(Bytes{4, 5}), {}};
  tensor.header.codec = 4;
  tensor.header.era = 7;
  seal(tensor);
  return tensor;
}

TEST(EncodedTensorTest, ASealHoldsForExactlyWhatWasSealed) {
  EXPECT_TRUE(check_seal(sealed()));
  const auto changed = [](auto change) {
    EncodedTensor tensor = sealed();
    change(tensor);
    return !check_seal(tensor);
  };
  EXPECT_TRUE(changed([](auto& t) { t.values = share(Bytes{1, 2, 2}); }));
  EXPECT_TRUE(changed([](auto& t) { t.tokens = share(Bytes{4, 4}); }));
  EXPECT_TRUE(changed([](auto& t) { t.tokens = nullptr; }));
  EXPECT_TRUE(changed([](auto& t) { t.header.codec = 3; }));
  EXPECT_TRUE(changed([](auto& t) { t.header.era = 8; }));
  EXPECT_TRUE(changed([](auto& t) { t.header.digest[15] ^= 1; }));
  // The same bytes one after the other, cut elsewhere.
  EXPECT_TRUE(changed([](auto& t) {
    t.values = share(Bytes{1, 2});
    t.tokens = share(Bytes{3, 4, 5});
  }));
  EXPECT_FALSE(check_seal({})) << "nothing was sealed";
}

}  // namespace
}  // namespace isthmus::compress
