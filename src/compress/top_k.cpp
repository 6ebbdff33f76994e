#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "compress/boundary_codec.h"
#include "compress/magnitudes.h"

namespace isthmus::compress {

namespace {

// Layout: the kept values of all tokens as `values` writes a tokens × kept tensor, then their columns, ascending
// within a token, 1, 2 or 4 bytes each by the number of columns.
class TopK final : public BoundaryCodec {
 public:
  TopK(std::uint64_t kept, std::unique_ptr<BoundaryCodec> values) : kept_(kept), values_(std::move(values)) {}

  std::uint8_t id() const override { return static_cast<std::uint8_t>(16 + values_->id()); }
  std::uint64_t bytes(BoundaryShape shape) const override {
    const BoundaryShape inner = kept(shape);
    return values_->bytes(inner) + inner.numbers() * width(shape);
  }
  // What is dropped is gone.
  double error_bound() const override { return 1; }

  Bytes encode(std::span<const float> values, BoundaryShape shape, std::uint64_t dither) const override {
    const BoundaryShape inner = kept(shape);
    const std::uint64_t bytes_each = width(shape);
    std::vector<float> chosen(inner.numbers());
    Bytes columns(inner.numbers() * bytes_each);
    for (std::uint64_t t = 0; t < shape.tokens && inner.columns > 0; ++t) {
      const float* row = values.data() + t * shape.columns;
      const std::int32_t least = least_of_largest(row, shape.columns, inner.columns);
      std::uint64_t ties = inner.columns - count_above(row, shape.columns, least);
      std::uint64_t at = t * inner.columns;
      for (std::uint32_t column = 0; column < shape.columns; ++column) {
        const std::int32_t size = magnitude(row[column]);
        if (size < least || (size == least && ties == 0)) continue;
        ties -= size == least;
        chosen[at] = row[column];
        std::memcpy(columns.data() + at * bytes_each, &column, bytes_each);  // little-endian: the low bytes come first
        ++at;
      }
    }
    Bytes out = values_->encode(chosen, inner, dither);
    out.insert(out.end(), columns.begin(), columns.end());
    return out;
  }

  Status decode(ByteView in, BoundaryShape shape, std::span<float> out) const override {
    if (in.size() != bytes(shape))
      return fail("boundary tensor of {} bytes, expected {} for {} of each of {} tokens × {} columns", in.size(),
                  bytes(shape), kept_, shape.tokens, shape.columns);
    const BoundaryShape inner = kept(shape);
    const std::uint64_t bytes_each = width(shape);
    std::vector<float> chosen(inner.numbers());
    if (auto values = values_->decode(in.first(values_->bytes(inner)), inner, chosen); !values) return values;
    const std::uint8_t* columns = in.data() + values_->bytes(inner);
    std::ranges::fill(out, 0.0f);
    for (std::uint64_t t = 0; t < shape.tokens; ++t) {
      std::int64_t before = -1;
      for (std::uint64_t i = 0; i < inner.columns; ++i) {
        const std::uint64_t at = t * inner.columns + i;
        std::uint32_t column = 0;
        std::memcpy(&column, columns + at * bytes_each, bytes_each);
        if (column >= shape.columns || static_cast<std::int64_t>(column) <= before)
          return fail("column {} at place {} of token {}, expected them ascending below {}", column, i, t,
                      shape.columns);
        before = column;
        out[t * shape.columns + column] = chosen[at];
      }
    }
    return {};
  }

 private:
  BoundaryShape kept(BoundaryShape shape) const { return {shape.tokens, std::min(kept_, shape.columns)}; }
  static std::uint64_t width(BoundaryShape shape) { return shape.columns <= 256 ? 1 : shape.columns <= 65536 ? 2 : 4; }

  const std::uint64_t kept_;
  const std::unique_ptr<BoundaryCodec> values_;
};

}  // namespace

std::unique_ptr<BoundaryCodec> make_top_k(std::uint64_t kept, std::unique_ptr<BoundaryCodec> values) {
  return std::make_unique<TopK>(kept, std::move(values));
}

}  // namespace isthmus::compress
