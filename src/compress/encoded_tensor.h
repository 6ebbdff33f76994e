#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace isthmus {

// What crosses a boundary for one microbatch, ready for the wire. Immutable; cheap to copy, so custody, send queue
// and compute share one buffer.
struct EncodedTensor {
  // Coefficients (forward) or their gradient (backward), in the layout of the run's codec. Null if there are none.
  SharedBytes values;
  // Forward only: sequences × (context + 1) token ids, little-endian, as narrow as the vocabulary allows. They
  // restore E[token] and hold the labels. Null on the way back.
  SharedBytes tokens;

  std::uint64_t bytes() const {
    return (values ? values->size() : 0) + (tokens ? tokens->size() : 0);
  }
};

}  // namespace isthmus
