#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus {

// Packed token ids (little-endian, as narrow as the vocabulary allows) to an int64 tensor sequences × (context + 1).
// Refuses another length and ids at or above the vocabulary.
Result<at::Tensor> unpack_token_ids(ByteView bytes, std::int64_t sequences, std::int64_t context, std::uint32_t vocabulary);

}  // namespace isthmus
