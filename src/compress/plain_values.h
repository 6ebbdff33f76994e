#pragma once

#include <memory>

#include "compress/boundary_codec.h"

namespace isthmus::compress {

// Each value by itself, in a floating-point type.
std::unique_ptr<BoundaryCodec> make_fp32(Rounding);
// The upper half of an fp32, rounded to nearest, ties to even. NaN stays NaN.
std::unique_ptr<BoundaryCodec> make_bf16(Rounding);

}  // namespace isthmus::compress
