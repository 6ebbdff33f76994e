#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compress/boundary_codec.h"

namespace isthmus::compress {

// Sends with each tensor what the codec dropped of the one before (Seide et al., 2014; for boundaries: Rudakov et al.,
// arXiv 2401.07788). The sum of what arrives plus the residual is the sum of what was given. Depends on the order of
// the tensors, so nothing that is sent twice may go through it twice. One owner.
class ErrorFeedback {
 public:
  // `codec` outlives this.
  explicit ErrorFeedback(const BoundaryCodec& codec) : codec_(codec) {}
  Bytes encode(std::span<const float> values, BoundaryShape shape, std::uint64_t dither);
  // Starts anew, as a worker that joins does.
  void clear() { residual_.clear(); }

 private:
  const BoundaryCodec& codec_;
  std::vector<float> residual_;
};

}  // namespace isthmus::compress
