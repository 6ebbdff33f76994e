#include <algorithm>
#include <cstring>

#include "compress/bfloat16.h"
#include "compress/update_codec.h"
#include "compress/vectorized.h"

namespace isthmus::compress {

namespace {

// Payloads come from any address, so halves are read and written by bytes.
std::uint16_t half_at(const std::uint8_t* halves, std::uint64_t i) {
  std::uint16_t half;
  std::memcpy(&half, halves + 2 * i, sizeof half);
  return half;
}

ISTHMUS_VECTORIZED void write_halves(const float* numbers, std::uint64_t count, std::uint8_t* halves) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint16_t half = to_bfloat16(numbers[i]);
    std::memcpy(halves + 2 * i, &half, sizeof half);
  }
}
ISTHMUS_VECTORIZED void read_halves(const std::uint8_t* halves, std::uint64_t count, float* numbers) {
  for (std::uint64_t i = 0; i < count; ++i) numbers[i] = from_bfloat16(half_at(halves, i));
}
ISTHMUS_VECTORIZED void take_out(const std::uint8_t* halves, std::uint64_t count, float* numbers) {
  for (std::uint64_t i = 0; i < count; ++i) numbers[i] -= from_bfloat16(half_at(halves, i));
}
ISTHMUS_VECTORIZED bool all_finite(const std::uint8_t* halves, std::uint64_t count) {
  std::uint16_t largest = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto size = static_cast<std::uint16_t>(half_at(halves, i) & 0x7FFF);
    largest = largest > size ? largest : size;
  }
  return largest < 0x7F80;
}

// Lanes fix the order of the additions.
ISTHMUS_VECTORIZED void add_products(const std::uint8_t* a, const std::uint8_t* b, std::uint64_t count, Overlap* out) {
  constexpr std::uint64_t kSums = 16;
  double products[kSums] = {}, squares[kSums] = {};
  const auto add = [&](std::uint64_t at, std::uint64_t lanes) {
    for (std::uint64_t lane = 0; lane < lanes; ++lane) {
      const double product = static_cast<double>(from_bfloat16(half_at(a, at + lane))) *
                             static_cast<double>(from_bfloat16(half_at(b, at + lane)));
      products[lane] += product;
      squares[lane] += product * product;
    }
  };
  std::uint64_t at = 0;
  for (; at + kSums <= count; at += kSums) add(at, kSums);
  add(at, count - at);
  for (std::uint64_t lane = 0; lane < kSums; ++lane) out->product += products[lane], out->squares += squares[lane];
}

// Layout: the numbers, bf16.
class DenseUpdate final : public UpdateCodec {
 public:
  explicit DenseUpdate(std::uint64_t numbers) : numbers_(numbers) {}

  std::uint64_t numbers() const override { return numbers_; }
  std::uint64_t kept() const override { return numbers_; }
  std::uint64_t bytes() const override { return numbers_ * 2; }

  Bytes encode(std::span<float> buffer) const override {
    Bytes out(bytes());
    write_halves(buffer.data(), numbers_, out.data());
    if (all_finite(out.data(), numbers_)) take_out(out.data(), numbers_, buffer.data());
    return out;
  }

  Status check(ByteView payload) const override {
    if (payload.size() != bytes()) return fail("update of {} bytes, expected {}", payload.size(), bytes());
    if (!all_finite(payload.data(), numbers_)) return fail("its numbers are not finite");
    return {};
  }

  Overlap overlap(ByteView a, ByteView b) const override {
    Overlap out{.positions = numbers_, .of = numbers_};
    add_products(a.data(), b.data(), numbers_, &out);
    return out;
  }

  void decode(ByteView payload, std::uint64_t first, std::span<float> out) const override {
    read_halves(payload.data() + 2 * first, out.size(), out.data());
  }

 private:
  const std::uint64_t numbers_;
};

}  // namespace

std::unique_ptr<UpdateCodec> make_dense_update(std::uint64_t numbers) { return std::make_unique<DenseUpdate>(numbers); }

}  // namespace isthmus::compress
