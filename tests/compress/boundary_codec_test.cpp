#include "compress/boundary_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/counter_random.h"
#include "compress/error_feedback.h"

namespace isthmus::compress {
namespace {

using Values = std::vector<float>;

Values values(BoundaryShape shape, double size = 1) {
  const CounterRandom random(3, "values");
  Values v(shape.numbers());
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(size * random.normal(i));
  return v;
}

// A codec, and the least cosine between a tensor of normal numbers and what comes back of it.
struct Subject {
  const char* name;
  std::unique_ptr<BoundaryCodec> (*make)();
  double cosine;
};

template <Rounding kRounding>
std::unique_ptr<BoundaryCodec> int8() {
  return make_value_codec("int8", kRounding);
}
template <Rounding kRounding>
std::unique_ptr<BoundaryCodec> int4() {
  return make_value_codec("int4", kRounding);
}

const Subject kSubjects[] = {
    {"fp32", [] { return make_value_codec("fp32", Rounding::kNearest); }, 1 - 1e-12},
    {"bf16", [] { return make_value_codec("bf16", Rounding::kNearest); }, 0.9999},
    {"int8", int8<Rounding::kNearest>, 0.9999},
    {"int8_stochastic", int8<Rounding::kStochastic>, 0.9998},
    {"int4", int4<Rounding::kNearest>, 0.99},
    {"int4_stochastic", int4<Rounding::kStochastic>, 0.98},
    {"top_3_fp32", [] { return make_top_k(3, make_value_codec("fp32", Rounding::kNearest)); }, 0.5},
    {"top_3_bf16", [] { return make_top_k(3, make_value_codec("bf16", Rounding::kNearest)); }, 0.5},
    {"top_3_int4", [] { return make_top_k(3, make_value_codec("int4", Rounding::kStochastic)); }, 0.5},
};

// What every codec has to do.
class BoundaryCodecContract : public ::testing::TestWithParam<Subject> {
 protected:
  Result<Values> decode(ByteView bytes, BoundaryShape shape) const {
    Values out(shape.numbers(), 77.0f);
    if (auto status = codec_->decode(bytes, shape, out); !status) return tl::unexpected(status.error());
    return out;
  }
  Bytes encode(const Values& v, BoundaryShape shape, std::uint64_t dither = 5) const {
    return codec_->encode(v, shape, dither);
  }
  // Largest error, and the most there may be, in units of the block's largest magnitude.
  void expect_within_bound(const Values& in, const Values& out) const {
    for (std::size_t at = 0; at < in.size(); at += kBlock) {
      const std::size_t end = std::min(in.size(), at + kBlock);
      float largest = 0;
      for (std::size_t i = at; i < end; ++i) largest = std::max(largest, std::abs(in[i]));
      for (std::size_t i = at; i < end; ++i)
        EXPECT_LE(std::abs(out[i] - in[i]), largest * codec_->error_bound()) << in[i] << " became " << out[i];
    }
  }
  const std::unique_ptr<BoundaryCodec> codec_ = GetParam().make();
};

constexpr BoundaryShape kShapes[] = {{7, 5}, {1, 1}, {128, 41}, {0, 5}, {3, 0}, {64, 64}, {1, 63}, {2, 65}, {3, 300}};

TEST_P(BoundaryCodecContract, ComesBackWithinItsErrorBound) {
  for (const auto shape : kShapes)
    for (const double size : {1.0, 1e-6, 1e30}) {
      const Values in = values(shape, size);
      const auto out = decode(encode(in, shape), shape);
      ASSERT_TRUE(out) << out.error().message;
      expect_within_bound(in, *out);
    }
}

TEST_P(BoundaryCodecContract, CountsItsBytesExactly) {
  for (const auto shape : kShapes) EXPECT_EQ(encode(values(shape), shape).size(), codec_->bytes(shape));
}

TEST_P(BoundaryCodecContract, LetsNothingNotFinitePassAsFinite) {
  const BoundaryShape shape{4, 48};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    Values in = values(shape);
    in[70] = bad;
    const auto out = decode(encode(in, shape), shape);
    ASSERT_TRUE(out) << out.error().message;
    EXPECT_FALSE(std::isfinite((*out)[70]));
    // Other blocks are as they were.
    EXPECT_TRUE(std::isfinite((*out)[0]));
  }
}

TEST_P(BoundaryCodecContract, TakesTheSmallestAndTheLargestNumbers) {
  const BoundaryShape shape{1, 5};
  const float most = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min();
  for (const Values& in : {Values{0, 0, 0, 0, 0}, Values{least, -least, 0, least, least},
                           Values{most / 2, -most / 2, 1, 0, 2}, Values{-0.0f, 1e-30f, 2e-38f, -1e-38f, 0}}) {
    const auto out = decode(encode(in, shape), shape);
    ASSERT_TRUE(out) << out.error().message;
    for (std::size_t i = 0; i < in.size(); ++i)
      EXPECT_NEAR((*out)[i], in[i], std::max(1e-30, std::abs(in[0]) * codec_->error_bound()));
  }
}

TEST_P(BoundaryCodecContract, RefusesAnyOtherLength) {
  const BoundaryShape shape{8, 4};
  const Bytes good = encode(values(shape), shape);
  for (std::size_t length = 0; length < good.size(); ++length)
    EXPECT_FALSE(decode(ByteView(good).first(length), shape));
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_FALSE(decode(longer, shape));
  EXPECT_FALSE(decode(good, {4, 4}));
}

TEST_P(BoundaryCodecContract, SurvivesAnyBytes) {
  const CounterRandom random(9, "bytes");
  const BoundaryShape shape{5, 29};
  Bytes bytes(codec_->bytes(shape));
  for (std::uint64_t round = 0; round < 300; ++round) {
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<std::uint8_t>(random.bits(round * bytes.size() + i));
    // Refused, or as many values as asked for: the sanitizers see the rest.
    if (const auto out = decode(bytes, shape)) {
      EXPECT_EQ(out->size(), shape.numbers());
    }
  }
}

TEST_P(BoundaryCodecContract, TakesBytesFromAnyAddress) {
  const BoundaryShape shape{3, 17};
  const Bytes good = encode(values(shape), shape);
  Bytes moved(good.size() + 1);
  std::ranges::copy(good, moved.begin() + 1);
  EXPECT_EQ(*decode(ByteView(moved).subspan(1), shape), *decode(good, shape));
}

TEST_P(BoundaryCodecContract, IsDeterministic) {
  const BoundaryShape shape{9, 9};
  EXPECT_EQ(encode(values(shape), shape), encode(values(shape), shape));
}

TEST_P(BoundaryCodecContract, KeepsTheDirectionOfAGradient) {
  const BoundaryShape shape{100, 16};
  const Values in = values(shape), out = *decode(encode(in, shape), shape);
  const auto dot = [](const Values& a, const Values& b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  };
  EXPECT_GT(dot(in, out) / std::sqrt(dot(in, in) * dot(out, out)), GetParam().cosine);
}

INSTANTIATE_TEST_SUITE_P(All, BoundaryCodecContract, ::testing::ValuesIn(kSubjects),
                         [](const auto& subject) { return std::string(subject.param.name); });

TEST(BoundaryCodecs, HaveANumberEach) {
  std::map<std::uint8_t, std::string> seen{{0, "none"}};
  for (const char* values : {"fp32", "bf16", "int8", "int4"}) {
    const auto plain = make_value_codec(values, Rounding::kNearest);
    const auto sparse = make_top_k(3, make_value_codec(values, Rounding::kNearest));
    EXPECT_TRUE(seen.emplace(plain->id(), values).second) << values << " and " << seen[plain->id()];
    EXPECT_TRUE(seen.emplace(sparse->id(), values).second) << "top-k " << values << " and " << seen[sparse->id()];
    EXPECT_EQ(plain->id(), make_value_codec(values, Rounding::kStochastic)->id()) << "decoded alike";
  }
}

TEST(BoundaryCodecs, AreThoseOfTheSchema) {
  std::ifstream in(ISTHMUS_SOURCE_DIR "/configs/run.schema.json");
  const auto boundary = nlohmann::json::parse(in)["properties"]["boundary"]["properties"];
  for (const char* key : {"values", "gradient_values"})
    for (const std::string name : boundary[key]["enum"])
      EXPECT_TRUE(make_value_codec(name, Rounding::kNearest)) << name;
  EXPECT_FALSE(make_value_codec("int5", Rounding::kNearest));
}

TEST(BoundaryCodecs, CostWhatTheirFormatSays) {
  const BoundaryShape shape{256, 32};
  const auto bytes = [&](const char* name) { return make_value_codec(name, Rounding::kNearest)->bytes(shape) / 256.0; };
  EXPECT_EQ(bytes("fp32"), 128);
  EXPECT_EQ(bytes("bf16"), 64);
  EXPECT_EQ(bytes("int8"), 33);
  EXPECT_EQ(bytes("int4"), 17);
  // Two bytes a value and one for where it stood.
  EXPECT_EQ(make_top_k(8, make_value_codec("bf16", Rounding::kNearest))->bytes({256, 200}) / 256, 24u);
}

// Nearest rounding loses for ever what is small beside the block's largest; stochastic rounding keeps its mean.
TEST(StochasticRounding, KeepsTheMeanOfSmallGradients) {
  const BoundaryShape shape{1, 64};
  Values in(64, 0.01f), sum(64, 0.0f), out(64);
  in[0] = 1.0f;
  const auto codec = make_value_codec("int4", Rounding::kStochastic);
  const int rounds = 20000;
  for (int i = 0; i < rounds; ++i) {
    ASSERT_TRUE(
        codec->decode(codec->encode(in, shape, static_cast<std::uint64_t>(i) * 0x9E3779B97F4A7C15ull), shape, out));
    for (std::size_t j = 0; j < 64; ++j) sum[j] += out[j];
  }
  // A value of 0.07 steps: deviation of the mean 0.26 steps / sqrt(rounds · 63).
  const double mean = std::accumulate(sum.begin() + 1, sum.end(), 0.0) / 63 / rounds;
  EXPECT_NEAR(mean, 0.01, 5 * 0.26 / 7 / std::sqrt(63.0 * rounds));
  const auto nearest = make_value_codec("int4", Rounding::kNearest);
  ASSERT_TRUE(nearest->decode(nearest->encode(in, shape, 0), shape, out));
  EXPECT_EQ(out[1], 0.0f);
}

TEST(BlockIntegers, RefuseCodesAndScalesThatNobodyWrites) {
  const BoundaryShape shape{1, 3};
  Values out(3);
  const auto eight = make_value_codec("int8", Rounding::kNearest), four = make_value_codec("int4", Rounding::kNearest);
  const Bytes good8 = eight->encode(Values{1, -1, 0.5f}, shape, 0), good4 = four->encode(Values{1, -1, 0.5f}, shape, 0);
  const auto with = [](Bytes bytes, std::size_t at, std::uint8_t value) {
    bytes[at] = value;
    return bytes;
  };
  EXPECT_TRUE(eight->decode(good8, shape, out));
  EXPECT_FALSE(eight->decode(with(good8, 3, 0x80), shape, out));  // -128
  EXPECT_FALSE(eight->decode(with(good8, 1, 0xBF), shape, out));  // a negative scale
  EXPECT_FALSE(eight->decode(with(good8, 1, 0x7F), shape, out));  // 0x7F80 and above: not finite
  EXPECT_TRUE(four->decode(good4, shape, out));
  EXPECT_FALSE(four->decode(with(good4, 2, 0x88), shape, out));             // -8
  EXPECT_FALSE(four->decode(with(good4, 3, good4[3] | 0x10), shape, out));  // something behind the last value
}

// As sorting by magnitude would; of equal ones the lower columns, and what is no number before all others.
TEST(TopK, KeepsTheLargest) {
  const BoundaryShape shape{40, 70};
  for (const double scale : {1.0, 1e-40, 1e30}) {
    Values in = values(shape, scale);
    for (std::size_t i = 0; i < in.size(); ++i) {
      if (i / 70 % 4 == 1) in[i] = std::copysign(static_cast<float>(i % 3), in[i]);  // many alike
      if (i / 70 % 4 == 2 && i % 5 == 0) in[i] = std::numeric_limits<float>::infinity();
    }
    in[7] = -std::numeric_limits<float>::quiet_NaN();
    for (const std::uint64_t kept : {1u, 3u, 64u, 70u}) {
      const auto codec = make_top_k(kept, make_value_codec("fp32", Rounding::kNearest));
      Values out(in.size());
      ASSERT_TRUE(codec->decode(codec->encode(in, shape, 0), shape, out));
      for (std::uint64_t t = 0; t < shape.tokens; ++t) {
        std::vector<std::uint64_t> order(shape.columns);
        std::iota(order.begin(), order.end(), t * shape.columns);
        std::ranges::stable_sort(order, [&](std::uint64_t a, std::uint64_t b) {
          return std::isnan(in[a]) != std::isnan(in[b]) ? std::isnan(in[a]) : std::abs(in[a]) > std::abs(in[b]);
        });
        for (std::uint64_t i = 0; i < shape.columns; ++i) {
          const float expected = i < kept ? in[order[i]] : 0, seen = out[order[i]];
          EXPECT_TRUE(seen == expected || (std::isnan(seen) && std::isnan(expected))) << seen << " is not " << expected;
        }
      }
    }
  }
}

TEST(TopK, RefusesColumnsOutOfRangeRepeatedOrOutOfOrder) {
  const BoundaryShape shape{2, 10};
  const auto codec = make_top_k(3, make_value_codec("fp32", Rounding::kNearest));
  const Values in = values(shape);
  Values out(20);
  const Bytes good = codec->encode(in, shape, 0);
  const std::size_t columns = good.size() - 6;
  for (const auto& [a, b] : {std::pair<std::uint8_t, std::uint8_t>{10, 9}, {4, 4}, {5, 4}, {255, 255}}) {
    Bytes bad = good;
    bad[columns] = 0;
    bad[columns + 1] = a;
    bad[columns + 2] = b;
    EXPECT_FALSE(codec->decode(bad, shape, out));
  }
  ASSERT_TRUE(codec->decode(good, shape, out));
  // What was kept is exact, and no smaller than what was dropped.
  for (std::size_t row = 0; row < 2; ++row) {
    float least_kept = 1e9f, largest_dropped = 0;
    for (std::size_t i = row * 10; i < row * 10 + 10; ++i) {
      if (out[i] != 0) {
        EXPECT_EQ(out[i], in[i]);
        least_kept = std::min(least_kept, std::abs(in[i]));
      } else {
        largest_dropped = std::max(largest_dropped, std::abs(in[i]));
      }
    }
    EXPECT_GE(least_kept, largest_dropped);
  }
}

// What arrives, and what is still kept back, is all that was given.
TEST(ErrorFeedbackOfTopK, LosesNothingInTheLongRun) {
  const BoundaryShape shape{2, 32};
  const auto codec = make_top_k(4, make_value_codec("fp32", Rounding::kNearest));
  ErrorFeedback feedback(*codec);
  Values given(64, 0.0f), arrived(64, 0.0f), out(64);
  const Values in = values(shape);
  for (int i = 0; i < 400; ++i) {
    ASSERT_TRUE(codec->decode(feedback.encode(in, shape, 0), shape, out));
    for (std::size_t j = 0; j < 64; ++j) given[j] += in[j], arrived[j] += out[j];
  }
  for (std::size_t j = 0; j < 64; ++j) EXPECT_NEAR(arrived[j] / 400, in[j], 0.1) << j;
  // Without it, what is small never comes.
  ASSERT_TRUE(codec->decode(codec->encode(in, shape, 0), shape, out));
  EXPECT_EQ(std::ranges::count(out, 0.0f), 56);
}

}  // namespace
}  // namespace isthmus::compress
