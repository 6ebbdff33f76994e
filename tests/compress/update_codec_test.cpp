#include "compress/update_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "compress/random_updates.h"
#include "compress/update_likeness.h"

namespace isthmus::compress {
namespace {

using Tensors = std::vector<std::uint64_t>;
using ::testing::HasSubstr;

std::uint64_t total(const Tensors& tensors) {
  return std::accumulate(tensors.begin(), tensors.end(), std::uint64_t{0});
}

struct Update {
  const char* name;
  std::unique_ptr<UpdateCodec> (*make)(const Tensors& tensors);
};

const Update kUpdates[] = {
    {"sparse", [](const Tensors& tensors) { return make_sparse_update(tensors); }},
    {"dense", [](const Tensors& tensors) { return make_dense_update(total(tensors)); }},
};

const Tensors kTensors[] = {{},       {0},    {1},    {1, 1, 1}, {0, 5, 0, 64, 65}, {63},
                            {129, 3}, {4095}, {4096}, {4097},    {4160, 4161},      {100, 9000, 1, 0, 12288, 7}};

const float kNotFinite[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(), std::bit_cast<float>(0x7FFFFFFFu)};

Values decoded(const UpdateCodec& codec, ByteView payload) {
  Values out(codec.numbers(), 77.0f);
  codec.decode(payload, 0, out);
  return out;
}

// What every codec has to do.
class UpdateCodecContract : public ::testing::TestWithParam<Update> {
 protected:
  static std::unique_ptr<UpdateCodec> make(const Tensors& tensors) { return GetParam().make(tensors); }
};

// Numbers of several distributions, seeded.
Values any_values(std::uint64_t count, std::uint64_t kind) {
  const double sizes[] = {1, 3, 1e-40, 1e30, 1e37};
  Values out = normals(count, "any" + std::to_string(kind), sizes[kind % 5]);
  const CounterRandom random(kind, "kind");
  for (std::uint64_t i = 0; i < count; ++i) {
    if (kind % 8 == 1) out[i] = static_cast<float>(random.below(4, i)) - 1.0f;  // many alike
    if (kind % 8 == 2 && random.below(100, i) > 0) out[i] = 0.0f;               // hardly any
    if (kind % 8 == 3)
      out[i] *= static_cast<float>(std::ldexp(1.0, -static_cast<int>(random.below(60, i))));  // of all sizes
    if (kind % 8 == 4) out[i] = std::abs(out[i]);                                             // of one sign
    if (kind % 8 == 5) out[i] = -2.5f;
    if (kind % 8 == 6) out[i] = -0.0f;
    if (kind % 8 == 7) out[i] = std::round(out[i] * 4) / 4;  // some alike
  }
  return out;
}

TEST_P(UpdateCodecContract, CountsItsBytesExactly) {
  for (const auto& tensors : kTensors) {
    const auto codec = make(tensors);
    Values buffer = normals(total(tensors), "bytes");
    EXPECT_EQ(codec->numbers(), buffer.size());
    EXPECT_LE(codec->kept(), codec->numbers());
    EXPECT_EQ(codec->encode(buffer).size(), codec->bytes());
  }
}

TEST_P(UpdateCodecContract, TakesOutWhatItSends) {
  for (const auto& tensors : kTensors)
    for (std::uint64_t kind = 0; kind < 40; ++kind) {
      const auto codec = make(tensors);
      const Values before = any_values(total(tensors), kind);
      Values buffer = before;
      const Bytes payload = codec->encode(buffer);
      const auto status = codec->check(payload);
      ASSERT_TRUE(status) << status.error().message << ", kind " << kind;
      const Values sent = decoded(*codec, payload);
      for (std::size_t i = 0; i < before.size(); ++i)
        ASSERT_EQ(buffer[i], before[i] - sent[i]) << i << " of kind " << kind;
      double norm2 = 0, rest2 = 0;
      for (std::size_t i = 0; i < before.size(); ++i)
        norm2 += static_cast<double>(before[i]) * before[i], rest2 += static_cast<double>(buffer[i]) * buffer[i];
      EXPECT_LE(rest2, norm2);
    }
}

TEST_P(UpdateCodecContract, IsDeterministic) {
  for (const auto& tensors : kTensors) {
    Values a = normals(total(tensors), "same"), b = a;
    const auto codec = make(tensors);
    EXPECT_EQ(codec->encode(a), make(tensors)->encode(b));
    EXPECT_EQ(a, b);
  }
}

TEST_P(UpdateCodecContract, DecodesAnyRange) {
  const Tensors tensors{100, 9000, 1, 0, 12288, 7};
  const auto codec = make(tensors);
  Values buffer = normals(total(tensors), "range");
  const Bytes payload = codec->encode(buffer);
  const Values all = decoded(*codec, payload);
  for (std::uint64_t first = 0; first < all.size(); first += kTile)
    for (const std::uint64_t count : {std::uint64_t{0}, std::uint64_t{1}, kTile, 2 * kTile, std::uint64_t{5000}}) {
      Values out(std::min<std::uint64_t>(count, all.size() - first), 77.0f);
      codec->decode(payload, first, out);
      EXPECT_TRUE(std::ranges::equal(out, std::span(all).subspan(first, out.size()))) << first << " + " << count;
    }
}

TEST_P(UpdateCodecContract, RefusesWhatIsNotFinite) {
  for (const auto& tensors : kTensors)
    for (const float bad : kNotFinite)
      for (const bool everywhere : {false, true}) {
        const auto codec = make(tensors);
        Values buffer = normals(total(tensors), "not finite");
        if (buffer.empty()) continue;
        buffer[buffer.size() / 2] = bad;
        if (everywhere) std::ranges::fill(buffer, bad);
        const Bytes payload = codec->encode(buffer);
        ASSERT_EQ(payload.size(), codec->bytes());
        const auto status = codec->check(payload);
        ASSERT_FALSE(status);
        EXPECT_THAT(status.error().message, HasSubstr("not finite"));
        EXPECT_EQ(std::bit_cast<std::uint32_t>(buffer[buffer.size() / 2]), std::bit_cast<std::uint32_t>(bad));
      }
}

TEST_P(UpdateCodecContract, RefusesAnyOtherLength) {
  const auto codec = make({5, 0, 130});
  Values buffer = normals(135, "length");
  Bytes payload = codec->encode(buffer);
  for (std::size_t length = 0; length < payload.size(); ++length)
    EXPECT_FALSE(codec->check(ByteView(payload).first(length)));
  payload.push_back(0);
  EXPECT_FALSE(codec->check(payload));
}

TEST_P(UpdateCodecContract, SurvivesAnyBytes) {
  const CounterRandom random(9, "bytes");
  const Tensors tensors{33, 200, 4100, 1};
  const auto codec = make(tensors);
  Values buffer = normals(total(tensors), "bytes");
  const Bytes good = codec->encode(buffer);
  std::size_t taken = 0;
  for (std::uint64_t round = 0; round < 4000; ++round) {
    // Random throughout, or good but for a few bytes. Not in a larger allocation, where sanitizers would not see a read
    // beyond.
    Bytes bytes = good;
    const std::uint64_t changes = round % 2 == 0 ? bytes.size() : 1 + round % 5;
    for (std::uint64_t i = 0; i < changes; ++i) {
      const std::uint64_t at = round % 2 == 0 ? i : random.below(bytes.size(), round * 100000 + 2 * i);
      bytes[at] = static_cast<std::uint8_t>(random.bits(round * 100000 + 2 * i + 1));
    }
    if (!codec->check(bytes)) continue;
    ++taken;
    EXPECT_TRUE(std::ranges::all_of(decoded(*codec, bytes), [](float number) { return std::isfinite(number); }));
    EXPECT_TRUE(std::isfinite(codec->norm2(bytes)));
    EXPECT_GE(likeness(*codec, bytes, good), 0);
    EXPECT_LE(likeness(*codec, bytes, good), 1);
  }
  EXPECT_GT(taken, 100u);
}

TEST_P(UpdateCodecContract, TakesBytesFromAnyAddress) {
  const auto codec = make({4097, 70});
  Values buffer = normals(4167, "moved");
  const Bytes good = codec->encode(buffer);
  Bytes moved(good.size() + 1);
  std::ranges::copy(good, moved.begin() + 1);
  const ByteView view = ByteView(moved).subspan(1);
  EXPECT_TRUE(codec->check(view));
  EXPECT_EQ(decoded(*codec, view), decoded(*codec, good));
  EXPECT_EQ(codec->norm2(view), codec->norm2(good));
}

// As two loops over the decoded numbers would have it.
TEST_P(UpdateCodecContract, MultipliesWhatItDecodes) {
  for (const auto& tensors : kTensors) {
    const auto codec = make(tensors);
    const Values common = normals(total(tensors), "common");
    Values a = honest(common, 0.7, "a"), b = honest(common, 0.7, "b");
    const Bytes of_a = codec->encode(a), of_b = codec->encode(b);
    const Values x = decoded(*codec, of_a), y = decoded(*codec, of_b);
    double product = 0, squares = 0, norm2 = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double both = static_cast<double>(x[i]) * y[i];
      product += both, squares += both * both, norm2 += static_cast<double>(x[i]) * x[i];
    }
    const Overlap seen = codec->overlap(of_a, of_b);
    EXPECT_NEAR(seen.product, product, 1e-9 * norm2);
    EXPECT_NEAR(seen.squares, squares, 1e-9 * (squares + 1));
    EXPECT_NEAR(codec->norm2(of_a), norm2, 1e-9 * norm2);
    EXPECT_EQ(seen.product, codec->overlap(of_b, of_a).product);
  }
}

// Error feedback: what was sent and what is left are all that was given, and what is left does not grow, so in the mean
// over rounds every number arrives, however small beside its neighbours.
TEST_P(UpdateCodecContract, SendsEverythingInTheLongRun) {
  const Tensors tensors{4096, 100};
  const auto codec = make(tensors);
  const Values given = normals(total(tensors), "given");
  Values buffer(given.size(), 0.0f);
  std::vector<double> arrived(given.size());
  const int rounds = 800;
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < given.size(); ++i) buffer[i] += given[i];
    const Values sent = decoded(*codec, codec->encode(buffer));
    for (std::size_t i = 0; i < given.size(); ++i) arrived[i] += sent[i];
  }
  double norm2 = 0, missing2 = 0;
  for (std::size_t i = 0; i < given.size(); ++i) {
    EXPECT_NEAR(arrived[i] + buffer[i], rounds * given[i], 1e-2) << i;
    norm2 += given[i] * given[i];
    missing2 += std::pow(arrived[i] / rounds - given[i], 2);
  }
  EXPECT_LT(missing2, 0.01 * norm2);
}

// SparseLoCo's feedback forgets: e = 0.95 e + g. What is small all the time is then never sent, but the books balance:
// what was given is what was sent, what is left, and the twentieth that was forgotten each round.
TEST_P(UpdateCodecContract, BalancesWhereFeedbackForgets) {
  const Tensors tensors{8192};
  const auto codec = make(tensors);
  const Values given = normals(total(tensors), "given");
  Values buffer(given.size(), 0.0f);
  std::vector<double> arrived(given.size()), forgotten(given.size());
  const int rounds = 200;
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < given.size(); ++i) {
      forgotten[i] += 0.05 * buffer[i];
      buffer[i] = 0.95f * buffer[i] + given[i];
    }
    const Values sent = decoded(*codec, codec->encode(buffer));
    for (std::size_t i = 0; i < given.size(); ++i) arrived[i] += sent[i];
  }
  double norm2 = 0, arrived2 = 0, product = 0;
  for (std::size_t i = 0; i < given.size(); ++i) {
    EXPECT_NEAR(arrived[i] + buffer[i] + forgotten[i], rounds * given[i], 1e-2) << i;
    norm2 += given[i] * given[i], arrived2 += arrived[i] * arrived[i], product += arrived[i] * given[i];
  }
  EXPECT_GT(product / std::sqrt(norm2 * arrived2), 0.85);
}

INSTANTIATE_TEST_SUITE_P(All, UpdateCodecContract, ::testing::ValuesIn(kUpdates),
                         [](const auto& subject) { return std::string(subject.param.name); });

TEST(UpdateCodecs, CostWhatTheirFormatSays) {
  // 14 bits for one number of 64, and four values.
  EXPECT_EQ(make_sparse_update({1 << 20})->bytes(), (1u << 20) / 64 * 14 / 8 + 16);
  EXPECT_EQ(make_sparse_update({1, 0, 129})->bytes(), (16u + 2 + 1) + (16 + 5 + 1));
  EXPECT_EQ(make_sparse_update({1, 0, 129})->kept(), 4u);
  EXPECT_EQ(make_dense_update(1000)->bytes(), 2000u);
}

// Those that sorting by magnitude has first; of equal ones the first. A tile of zeros holds nothing.
TEST(SparseUpdate, KeepsTheLargestOfEachTile) {
  for (std::uint64_t kind = 0; kind < 40; ++kind) {
    const std::uint64_t numbers = 2 * kTile + 700;
    const auto codec = make_sparse_update({numbers});
    const Values before = any_values(numbers, kind);
    Values buffer = before;
    const Values sent = decoded(*codec, codec->encode(buffer));
    for (std::uint64_t first = 0; first < numbers; first += kTile) {
      const std::uint64_t count = std::min(kTile, numbers - first), kept = (count + 63) / 64;
      std::vector<std::uint64_t> order(count);
      std::iota(order.begin(), order.end(), first);
      std::ranges::stable_sort(
          order, [&](std::uint64_t a, std::uint64_t b) { return std::abs(before[a]) > std::abs(before[b]); });
      const bool zeros = before[order[0]] == 0;
      for (std::uint64_t i = 0; i < count; ++i) {
        const bool sends = !zeros && i < kept;
        // Where a value rounds to 0, nobody can tell.
        EXPECT_TRUE((sent[order[i]] != 0) == sends || (sends && std::abs(before[order[i]]) < 1e-2f))
            << "kind " << kind << ", number " << order[i] << ", the " << i << "th";
      }
    }
  }
}

// Of normal numbers and of their cubes. SparseLoCo's bins leave 0.0095 and 0.046 of the squares, no round of Lloyd's
// 0.0031 and 0.035.
TEST(SparseUpdate, QuantisesClosely) {
  const std::uint64_t numbers = 64 * kTile;
  const auto codec = make_sparse_update({numbers});
  for (const auto& [power, most] : {std::pair{1, 0.0032}, {3, 0.0345}}) {
    Values before = normals(numbers, "quantised");
    for (float& number : before) number = static_cast<float>(std::pow(number, power));
    Values buffer = before;
    const Values sent = decoded(*codec, codec->encode(buffer));
    double error2 = 0, kept2 = 0;
    for (std::uint64_t i = 0; i < numbers; ++i)
      if (sent[i] != 0) error2 += std::pow(before[i] - sent[i], 2), kept2 += std::pow(before[i], 2);
    EXPECT_LT(error2 / kept2, most);
  }
}

TEST(SparseUpdate, RefusesWhatNobodyWrites) {
  const auto codec = make_sparse_update({130});  // keeps 3: 16 bytes of values, 5 of indices, 1 of codes
  Values buffer = normals(130, "hostile");
  const Bytes good = codec->encode(buffer);
  ASSERT_EQ(good.size(), 22u);
  ASSERT_TRUE(codec->check(good));
  const auto with = [&](std::array<std::uint16_t, 3> index, std::uint8_t codes) {
    Bytes bytes = good;
    bytes[16] = static_cast<std::uint8_t>(index[0]);
    bytes[17] = static_cast<std::uint8_t>((index[0] >> 8) | (index[1] << 4));
    bytes[18] = static_cast<std::uint8_t>(index[1] >> 4);
    bytes[19] = static_cast<std::uint8_t>(index[2]);
    bytes[20] = static_cast<std::uint8_t>(index[2] >> 8);
    bytes[21] = codes;
    return bytes;
  };
  EXPECT_TRUE(codec->check(with({0, 1, 129}, 0x3F)));
  EXPECT_FALSE(codec->check(with({0, 1, 130}, 0)));  // behind the tensor
  EXPECT_FALSE(codec->check(with({0, 1, 4095}, 0)));
  EXPECT_FALSE(codec->check(with({0, 7, 7}, 0)));  // repeated
  EXPECT_FALSE(codec->check(with({7, 7, 8}, 0)));
  EXPECT_FALSE(codec->check(with({9, 8, 10}, 0)));  // out of order
  EXPECT_FALSE(codec->check(with({5, 0, 0}, 0)));
  EXPECT_TRUE(codec->check(with({0, 0, 0}, 0)));  // a tile of zeros
  EXPECT_FALSE(codec->check(with({0, 0, 0}, 1)));
  EXPECT_FALSE(codec->check(with({0, 0, 1}, 0)));
  EXPECT_FALSE(codec->check(with({0, 1, 2}, 0x40)));    // behind the last code
  EXPECT_FALSE(codec->check(with({0, 1, 0x1002}, 0)));  // behind the last index
  for (const float bad : kNotFinite)
    for (std::size_t entry = 0; entry < 4; ++entry) {
      Bytes bytes = good;
      std::memcpy(bytes.data() + 4 * entry, &bad, 4);
      EXPECT_FALSE(codec->check(bytes));
    }
  Bytes swapped = good;
  std::swap_ranges(swapped.begin(), swapped.begin() + 4, swapped.begin() + 12);
  EXPECT_FALSE(codec->check(swapped));
}

// Layout as in docs/protocol.md.
TEST(SparseUpdate, IsWrittenAsDocumented) {
  const auto codec = make_sparse_update({130});
  Values buffer(130, 0.0f);
  buffer[2] = -2, buffer[0x45] = 3, buffer[0x81] = 4;
  const Bytes bytes = codec->encode(buffer);
  EXPECT_EQ(Bytes(bytes.begin() + 16, bytes.begin() + 21), (Bytes{0x02, 0x50, 0x04, 0x81, 0x00}));
  float values[4];
  std::memcpy(values, bytes.data(), sizeof values);
  EXPECT_EQ(values[bytes[21] & 3], -2);
  EXPECT_EQ(values[(bytes[21] >> 2) & 3], 3);
  EXPECT_EQ(values[(bytes[21] >> 4) & 3], 4);
  EXPECT_EQ(buffer, Values(130, 0.0f));
}

TEST(DenseUpdate, RefusesWhatIsTooLargeForItsFormat) {
  const auto codec = make_dense_update(2);
  Values buffer{std::numeric_limits<float>::max(), 1.0f};
  EXPECT_FALSE(codec->check(codec->encode(buffer)));
  EXPECT_EQ(buffer[1], 1.0f);
}

TEST(Likeness, TellsCopiesFromHonestUpdates) {
  const std::uint64_t numbers = 32 * kTile;
  const Values common = normals(numbers, "common");
  for (const double share : {0.0, 0.2, 0.7}) {
    for (const auto& subject : kUpdates) {
      const auto codec = subject.make({numbers});
      Values a = honest(common, share, "a"), b = honest(common, share, "b"), scaled = a, other_signs = a;
      for (float& number : scaled) number *= 1.7f;
      for (std::size_t i = 0; i < numbers; i += 5) other_signs[i] *= -1;
      const Bytes of_a = codec->encode(a), of_b = codec->encode(b);
      EXPECT_EQ(likeness(*codec, of_a, of_a), 1);
      EXPECT_GT(likeness(*codec, of_a, codec->encode(scaled)), 0.95);
      EXPECT_LT(likeness(*codec, of_a, of_b), 0.3) << subject.name << ", share " << share;
      if (codec->kept() < numbers) {
        EXPECT_EQ(likeness(*codec, of_a, codec->encode(other_signs)), 1);
      }
    }
  }
}

// With error feedback the next update holds what this one left: it overlaps even less than chance has it.
TEST(Likeness, TellsAReplayFromTheNextUpdate) {
  const std::uint64_t numbers = 32 * kTile;
  const auto codec = make_sparse_update({numbers});
  Values buffer = normals(numbers, "first");
  Bytes before = codec->encode(buffer);
  for (int round = 0; round < 5; ++round) {
    const Values more = normals(numbers, "round" + std::to_string(round));
    for (std::size_t i = 0; i < numbers; ++i) buffer[i] = 0.95f * buffer[i] + more[i];
    const Bytes now = codec->encode(buffer);
    EXPECT_LT(likeness(*codec, before, now), 0.02);
    before = now;
  }
}

// Tiles that nobody moved are no likeness.
TEST(Likeness, DoesNotCountZeros) {
  const auto codec = make_sparse_update({4 * kTile});
  Values a(4 * kTile, 0.0f), b = a;
  const Bytes zeros = codec->encode(a);
  EXPECT_EQ(likeness(*codec, zeros, zeros), 0);
  std::ranges::copy(normals(kTile, "a"), a.begin() + kTile);
  std::ranges::copy(normals(kTile, "b"), b.begin() + kTile);
  const Bytes of_a = codec->encode(a), of_b = codec->encode(b);
  EXPECT_LT(likeness(*codec, of_a, of_b), 0.1);
  EXPECT_EQ(codec->overlap(of_a, of_b).of, 64u);
  EXPECT_EQ(codec->overlap(of_a, zeros).of, 64u);
  const auto dense = make_dense_update(3);
  Values none(3, 0.0f);
  const Bytes nothing = dense->encode(none);
  EXPECT_EQ(likeness(*dense, nothing, nothing), 0);
}

}  // namespace
}  // namespace isthmus::compress
