#include "compress/update_likeness.h"

#include <algorithm>
#include <cmath>

namespace isthmus::compress {

double likeness(const UpdateCodec& codec, ByteView a, ByteView b) {
  const Overlap both = codec.overlap(a, b);
  if (codec.kept() < codec.numbers())
    return both.of == 0 ? 0 : static_cast<double>(both.positions) / static_cast<double>(both.of);
  const double norms2 = codec.norm2(a) * codec.norm2(b);
  if (norms2 == 0 || both.product <= 0) return 0;
  return 1 - std::sqrt(std::max(0.0, 1 - both.product * both.product / norms2));
}

}  // namespace isthmus::compress
