#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "config/run_config.h"

namespace isthmus {

// How one microbatch's boundary tensor (tokens × columns, fp32: coefficients, hidden states or their gradient) becomes
// bytes and comes back. Stateless; any thread. Every implementation passes tests/compress/boundary_codec_test.cpp.
class BoundaryCodec {
 public:
  virtual ~BoundaryCodec() = default;
  // Exact size of an encoded tensor.
  virtual std::uint64_t bytes(std::int64_t tokens, std::int64_t columns) const = 0;
  // Largest relative error of a value that goes through (0: none).
  virtual double error_bound() const = 0;
  virtual Bytes encode(const at::Tensor& values) const = 0;
  // Refuses any other length. Infinities and NaN pass: the step they belong to is skipped as a whole.
  virtual Result<at::Tensor> decode(ByteView bytes, std::int64_t tokens, std::int64_t columns) const = 0;
};

// By boundary.values: fp32 | bf16.
std::unique_ptr<BoundaryCodec> make_boundary_codec(const std::string& values);

}  // namespace isthmus
