#include "compress/block_integers.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "compress/bfloat16.h"
#include "compress/vectorized.h"

namespace isthmus::compress {

namespace {

constexpr std::uint32_t kInfinityBits = 0x7F800000;
constexpr std::uint16_t kNotFinite = 0x7FC0;  // a block that holds a NaN or an infinity

// Uniform in [0, 1), from a counter: two rounds of multiply and xor-shift (C. Wellons, "lowbias32", 2018).
ISTHMUS_VECTORIZED void draw_block(std::uint32_t key, std::uint32_t first, float* uniform) {
  for (std::uint32_t i = 0; i < kBlock; ++i) {
    std::uint32_t x = (first + i) * 0x9E3779B9u + key;
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    x ^= x >> 16;
    uniform[i] = static_cast<float>(static_cast<std::int32_t>(x >> 8)) * 0x1p-24f;
  }
}

// Codes of one block, unscaled. The largest magnitude is found among the bits: they order as magnitudes do, and NaN
// comes out on top. Returns the block's scale.
// `shift`, kBlock numbers: what is added before rounding down; null: rounding to nearest.
ISTHMUS_VECTORIZED std::uint16_t round_block(const float* values, std::uint32_t limit, const float* shift,
                                             std::int8_t* codes) {
  std::uint32_t largest = 0;
  for (std::uint64_t i = 0; i < kBlock; ++i)
    largest = std::max(largest, std::bit_cast<std::uint32_t>(values[i]) & 0x7FFFFFFFu);
  if (largest >= kInfinityBits) {
    std::memset(codes, 0, kBlock);
    return kNotFinite;
  }
  // Up, but never to infinity: the largest bf16 stands for what lies above it.
  const std::uint32_t scale_bits = std::min((largest + 0xFFFFu) >> 16, 0x7F7Fu);
  const float scale = std::bit_cast<float>(scale_bits << 16);
  // Scales too small to divide by mean zeros.
  const float inverse = scale < 0x1p-118f ? 0.0f : static_cast<float>(limit) / scale;
  const float bound = static_cast<float>(limit);
  // Adding 1.5 · 2^23 rounds to nearest, ties to even.
  constexpr float kRounder = 12582912.0f;
  float rounded[kBlock];
  if (shift) {
    for (std::uint64_t i = 0; i < kBlock; ++i) {
      const float shifted = values[i] * inverse + shift[i];
      const float nearest = (shifted + kRounder) - kRounder;
      rounded[i] = nearest > shifted ? nearest - 1.0f : nearest;
    }
  } else {
    for (std::uint64_t i = 0; i < kBlock; ++i) rounded[i] = (values[i] * inverse + kRounder) - kRounder;
  }
  for (std::uint64_t i = 0; i < kBlock; ++i) {
    const float low = rounded[i] < -bound ? -bound : rounded[i];
    codes[i] = static_cast<std::int8_t>(static_cast<std::int32_t>(low > bound ? bound : low));
  }
  return inverse == 0.0f ? std::uint16_t{0} : static_cast<std::uint16_t>(scale_bits);
}

ISTHMUS_VECTORIZED void scale_block(const std::int8_t* codes, float step, float* out, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(codes[i]) * step;
}

ISTHMUS_VECTORIZED void pack_halves(const std::int8_t* codes, std::uint8_t* out, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i)
    out[i] = static_cast<std::uint8_t>((codes[2 * i] & 15) | (codes[2 * i + 1] << 4));
}
ISTHMUS_VECTORIZED void unpack_halves(const std::uint8_t* in, std::int8_t* codes, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) {
    codes[2 * i] = static_cast<std::int8_t>(static_cast<std::int8_t>(in[i] << 4) >> 4);
    codes[2 * i + 1] = static_cast<std::int8_t>(static_cast<std::int8_t>(in[i]) >> 4);
  }
}
ISTHMUS_VECTORIZED bool any_below(const std::int8_t* codes, std::int8_t least, std::size_t count) {
  std::uint8_t found = 0;
  for (std::size_t i = 0; i < count; ++i) found |= codes[i] < least;
  return found != 0;
}

class BlockIntegers final : public BoundaryCodec {
 public:
  BlockIntegers(int bits, Rounding rounding) : bits_(bits), limit_((1u << (bits - 1)) - 1), rounding_(rounding) {}

  std::uint8_t id() const override { return bits_ == 8 ? 3 : 4; }
  std::uint64_t bytes(BoundaryShape shape) const override { return blocks(shape) * 2 + code_bytes(shape.numbers()); }
  double error_bound() const override {
    return (rounding_ == Rounding::kNearest ? 0.5 : 1.0) * (1 + 1.0 / 128) / limit_;
  }

  Bytes encode(std::span<const float> values, BoundaryShape shape, std::uint64_t dither) const override {
    Bytes out(bytes(shape));
    std::uint8_t* scales = out.data();
    std::uint8_t* packed = scales + blocks(shape) * 2;
    const auto key = static_cast<std::uint32_t>(dither ^ (dither >> 32));
    float padded[kBlock], shift[kBlock];
    std::int8_t codes[kBlock];
    for (std::uint64_t at = 0; at < values.size(); at += kBlock) {
      const std::uint64_t count = std::min<std::uint64_t>(kBlock, values.size() - at);
      const float* block = values.data() + at;
      if (count < kBlock) {
        std::ranges::fill(padded, 0.0f);
        std::copy_n(block, count, padded);
        block = padded;
      }
      if (rounding_ == Rounding::kStochastic) draw_block(key, static_cast<std::uint32_t>(at), shift);
      const std::uint16_t scale =
          round_block(block, limit_, rounding_ == Rounding::kStochastic ? shift : nullptr, codes);
      std::memcpy(scales + at / kBlock * 2, &scale, 2);
      if (bits_ == 8) {
        std::memcpy(packed + at, codes, count);
      } else {
        if (count % 2 == 1) codes[count] = 0;
        pack_halves(codes, packed + at / 2, (count + 1) / 2);
      }
    }
    return out;
  }

  Status decode(ByteView in, BoundaryShape shape, std::span<float> out) const override {
    if (in.size() != bytes(shape))
      return fail("boundary tensor of {} bytes, expected {} for {} tokens × {} columns of int{}", in.size(),
                  bytes(shape), shape.tokens, shape.columns, bits_);
    const std::uint8_t* scales = in.data();
    const std::uint8_t* packed = scales + blocks(shape) * 2;
    std::int8_t codes[kBlock];
    for (std::uint64_t at = 0; at < out.size(); at += kBlock) {
      const std::uint64_t count = std::min<std::uint64_t>(kBlock, out.size() - at);
      std::uint16_t half;
      std::memcpy(&half, scales + at / kBlock * 2, 2);
      if (half >= 0x7F80 && half != kNotFinite)
        return fail("scale {:#06x} of block {}, expected a finite one from 0 up", half, at / kBlock);
      if (bits_ == 8)
        std::memcpy(codes, packed + at, count);
      else
        unpack_halves(packed + at / 2, codes, (count + 1) / 2);
      if (any_below(codes, static_cast<std::int8_t>(-static_cast<int>(limit_)), count))
        return fail("code below {} in block {}", -static_cast<int>(limit_), at / kBlock);
      if (bits_ == 4 && count % 2 == 1 && codes[count] != 0)
        return fail("the half byte behind the last value is not 0");
      if (half == kNotFinite)
        std::fill_n(out.data() + at, count, std::numeric_limits<float>::quiet_NaN());
      else
        scale_block(codes, from_bfloat16(half) / static_cast<float>(limit_), out.data() + at, count);
    }
    return {};
  }

 private:
  static std::uint64_t blocks(BoundaryShape shape) { return (shape.numbers() + kBlock - 1) / kBlock; }
  std::uint64_t code_bytes(std::uint64_t numbers) const { return bits_ == 8 ? numbers : (numbers + 1) / 2; }

  const int bits_;
  const std::uint32_t limit_;
  const Rounding rounding_;
};

}  // namespace

std::unique_ptr<BoundaryCodec> make_int8(Rounding rounding) { return std::make_unique<BlockIntegers>(8, rounding); }
std::unique_ptr<BoundaryCodec> make_int4(Rounding rounding) { return std::make_unique<BlockIntegers>(4, rounding); }

}  // namespace isthmus::compress
