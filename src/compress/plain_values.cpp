#include "compress/plain_values.h"

#include <cstring>

#include "compress/bfloat16.h"
#include "compress/vectorized.h"

namespace isthmus::compress {

namespace {

// x86 and Arm are little-endian, as the wire is.
ISTHMUS_VECTORIZED void to_halves(const float* values, std::uint16_t* halves, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) halves[i] = to_bfloat16(values[i]);
}
ISTHMUS_VECTORIZED void from_halves(const std::uint16_t* halves, float* values, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) values[i] = from_bfloat16(halves[i]);
}

Status check_length(ByteView in, std::uint64_t expected, BoundaryShape shape) {
  if (in.size() == expected) return {};
  return fail("boundary tensor of {} bytes, expected {} for {} tokens × {} columns", in.size(), expected, shape.tokens,
              shape.columns);
}

class Fp32 final : public BoundaryCodec {
 public:
  std::uint8_t id() const override { return 1; }
  std::uint64_t bytes(BoundaryShape shape) const override { return shape.numbers() * 4; }
  double error_bound() const override { return 0; }
  Bytes encode(std::span<const float> values, BoundaryShape shape, std::uint64_t) const override {
    Bytes out(bytes(shape));
    if (!out.empty()) std::memcpy(out.data(), values.data(), out.size());
    return out;
  }
  Status decode(ByteView in, BoundaryShape shape, std::span<float> out) const override {
    if (auto length = check_length(in, bytes(shape), shape); !length) return length;
    if (!in.empty()) std::memcpy(out.data(), in.data(), in.size());
    return {};
  }
};

class Bf16 final : public BoundaryCodec {
 public:
  std::uint8_t id() const override { return 2; }
  std::uint64_t bytes(BoundaryShape shape) const override { return shape.numbers() * 2; }
  double error_bound() const override { return 1.0 / 256; }
  Bytes encode(std::span<const float> values, BoundaryShape shape, std::uint64_t) const override {
    Bytes out(bytes(shape));
    // A vector's storage is aligned for any scalar.
    to_halves(values.data(), reinterpret_cast<std::uint16_t*>(out.data()), values.size());
    return out;
  }
  Status decode(ByteView in, BoundaryShape shape, std::span<float> out) const override {
    if (auto length = check_length(in, bytes(shape), shape); !length) return length;
    if (reinterpret_cast<std::uintptr_t>(in.data()) % 2 == 0) {
      from_halves(reinterpret_cast<const std::uint16_t*>(in.data()), out.data(), out.size());
      return {};
    }
    std::vector<std::uint16_t> aligned(out.size());
    std::memcpy(aligned.data(), in.data(), in.size());
    from_halves(aligned.data(), out.data(), out.size());
    return {};
  }
};

}  // namespace

std::unique_ptr<BoundaryCodec> make_fp32(Rounding) { return std::make_unique<Fp32>(); }
std::unique_ptr<BoundaryCodec> make_bf16(Rounding) { return std::make_unique<Bf16>(); }

}  // namespace isthmus::compress
