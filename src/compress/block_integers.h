#pragma once

#include <memory>

#include "compress/boundary_codec.h"

namespace isthmus::compress {

// Whole numbers from -127 to 127 (-7 to 7) times the largest magnitude of each kBlock consecutive values, which
// travels as a bf16 rounded up, so that no value is cut off and stochastic rounding is unbiased. The tensor counts as
// one long row: a block may span tokens.
//
// Layout: scales of all blocks, then the codes; int4: two's complement, two a byte, the first in the low half.
std::unique_ptr<BoundaryCodec> make_int8(Rounding rounding);
std::unique_ptr<BoundaryCodec> make_int4(Rounding rounding);

}  // namespace isthmus::compress
