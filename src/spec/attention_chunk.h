#pragma once

#include <cstdint>

namespace isthmus::spec {

// On a CPU, attention in contexts up to kChunkedContextMax is computed for so many queries at a time
// (model/layers.cpp); what it keeps follows from both (spec/stage_memory.cpp).
inline constexpr std::uint32_t kAttentionChunk = 64;
inline constexpr std::uint32_t kChunkedContextMax = 1024;

}  // namespace isthmus::spec
