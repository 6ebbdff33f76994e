#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "spec/run_spec.h"

namespace isthmus::compress {

// A boundary tensor: row-major, one row per token.
struct BoundaryShape {
  std::uint64_t tokens = 0;
  std::uint64_t columns = 0;
  std::uint64_t numbers() const { return tokens * columns; }
};

// How one microbatch's boundary tensor (coefficients, hidden states or their gradient) becomes bytes and comes back.
// Stateless; any thread; the same bits on every machine. Every implementation passes
// tests/compress/boundary_codec_test.cpp.
class BoundaryCodec {
 public:
  virtual ~BoundaryCodec() = default;
  // Names the layout in a payload's header, for good: no other codec has it, not 0.
  virtual std::uint8_t id() const = 0;
  // Exact size of an encoded tensor.
  virtual std::uint64_t bytes(BoundaryShape shape) const = 0;
  // Largest error of a value, relative to the largest magnitude among the kBlock values it shares a scale with (its
  // own, where there is no scale).
  virtual double error_bound() const = 0;
  // `dither` decides every random choice; nothing is drawn where a codec rounds to nearest.
  // REQUIRES: values.size() == shape.numbers().
  virtual Bytes encode(std::span<const float> values, BoundaryShape shape, std::uint64_t dither) const = 0;
  // Refuses what encode() cannot have written: another length, positions outside a row, codes and scales out of range.
  // What was not finite is not finite afterwards (in its whole block, for a codec with scales): the step it belongs to
  // is skipped as a whole. REQUIRES: out.size() == shape.numbers(). On error `out` is unspecified.
  virtual Status decode(ByteView bytes, BoundaryShape shape, std::span<float> out) const = 0;
};

// Values that share a scale in int8 and int4.
inline constexpr std::uint64_t kBlock = 64;

enum class Rounding { kNearest, kStochastic };
// fp32 | bf16 | int8 | int4. Stochastic rounding keeps sums of gradients unbiased where nearest would lose what is
// small beside the block's largest.
std::unique_ptr<BoundaryCodec> make_value_codec(std::string_view values, Rounding rounding);
// The `kept` largest magnitudes of each row, written by `values`, and where they stood.
std::unique_ptr<BoundaryCodec> make_top_k(std::uint64_t kept, std::unique_ptr<BoundaryCodec> values);

enum class Direction { kForward, kBackward };
// The run's codec of one direction.
std::unique_ptr<BoundaryCodec> make_boundary_codec(const spec::RunSpec& run, Direction direction);
// One microbatch's boundary tensor in this run, either direction.
BoundaryShape boundary_shape(const spec::RunSpec& run);

}  // namespace isthmus::compress
