#include "compress/boundary_codec.h"

#include <ATen/ATen.h>

#include <cstring>

namespace isthmus {

namespace {

// Values as they are, in a floating-point type of the wire. x86 and Arm are little-endian, as the wire is.
class PlainValues final : public BoundaryCodec {
 public:
  PlainValues(at::ScalarType type, double error) : type_(type), error_(error) {}

  std::uint64_t bytes(std::int64_t tokens, std::int64_t columns) const override {
    return static_cast<std::uint64_t>(tokens * columns) * at::elementSize(type_);
  }
  double error_bound() const override { return error_; }

  Bytes encode(const at::Tensor& values) const override {
    const at::Tensor plain = values.detach().to(at::kCPU, type_).contiguous();
    Bytes out(plain.nbytes());
    if (!out.empty()) std::memcpy(out.data(), plain.const_data_ptr(), out.size());
    return out;
  }

  Result<at::Tensor> decode(ByteView in, std::int64_t tokens, std::int64_t columns) const override {
    if (in.size() != bytes(tokens, columns))
      return fail("boundary tensor of {} bytes, expected {} for {} tokens × {} columns", in.size(), bytes(tokens, columns), tokens, columns);
    at::Tensor plain = at::empty({tokens, columns}, type_);
    if (!in.empty()) std::memcpy(plain.mutable_data_ptr(), in.data(), in.size());
    return plain.to(at::kFloat);
  }

 private:
  const at::ScalarType type_;
  const double error_;
};

}  // namespace

std::unique_ptr<BoundaryCodec> make_boundary_codec(const std::string& values) {
  if (values == "fp32") return std::make_unique<PlainValues>(at::kFloat, 0.0);
  return std::make_unique<PlainValues>(at::kBFloat16, 1.0 / 256);
}

}  // namespace isthmus
