#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus::compress {

// Packed token ids (little-endian, as narrow as the vocabulary allows): sequences × (context + 1) of them, row-major.
// Refuses another length and ids at or above the vocabulary.
Result<std::vector<std::int64_t>> unpack_token_ids(ByteView bytes, std::int64_t sequences, std::int64_t context,
                                                   std::uint32_t vocabulary);

}  // namespace isthmus::compress
