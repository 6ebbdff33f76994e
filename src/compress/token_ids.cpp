#include "compress/token_ids.h"

#include "base/token_width.h"

namespace isthmus::compress {

Result<std::vector<std::int64_t>> unpack_token_ids(ByteView bytes, std::int64_t sequences, std::int64_t context,
                                                   std::uint32_t vocabulary) {
  const std::size_t width = token_width(vocabulary);
  const auto count = static_cast<std::size_t>(sequences * (context + 1));
  if (bytes.size() != count * width)
    return fail("token ids of {} bytes, expected {} for {} sequences of {}", bytes.size(), count * width, sequences,
                context + 1);
  std::vector<std::int64_t> ids(count);
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t id = 0;
    for (std::size_t b = 0; b < width; ++b) id |= std::uint32_t{bytes[i * width + b]} << (8 * b);
    if (id >= vocabulary) return fail("token id {} at position {}, the vocabulary has {}", id, i, vocabulary);
    ids[i] = id;
  }
  return ids;
}

}  // namespace isthmus::compress
