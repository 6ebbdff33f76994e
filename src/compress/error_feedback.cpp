#include "compress/error_feedback.h"

#include <cmath>

namespace isthmus::compress {

Bytes ErrorFeedback::encode(std::span<const float> values, BoundaryShape shape, std::uint64_t dither) {
  residual_.resize(values.size(), 0.0f);
  for (std::size_t i = 0; i < values.size(); ++i) residual_[i] += values[i];
  Bytes out = codec_.encode(residual_, shape, dither);
  std::vector<float> arrived(values.size());
  // Our own bytes always decode.
  if (codec_.decode(out, shape, arrived))
    for (std::size_t i = 0; i < values.size(); ++i) {
      residual_[i] -= arrived[i];
      // One bad microbatch must not spoil all that follow.
      if (!std::isfinite(residual_[i])) residual_[i] = 0.0f;
    }
  return out;
}

}  // namespace isthmus::compress
