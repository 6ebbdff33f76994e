#pragma once

#include <algorithm>
#include <cstdint>

namespace isthmus::spec {

// The tail makes no more logits at once than these bytes of fp32 hold: 131 tokens of a vocabulary of 32,000, 32 of
// 128,000. So many rows are enough for a matrix product at full speed, and glibc's heap hands out so much again without
// asking the kernel for fresh pages (M_MMAP_THRESHOLD). Vocabularies that fit as a whole are not cut.
inline constexpr std::uint64_t kLogitsBytesMax = 16 << 20;

// How many of the tail's `rows` × `columns` logits fit, in whole rows; `rows`: all of them.
constexpr std::uint64_t logits_rows(std::uint64_t rows, std::uint64_t columns) {
  return std::clamp<std::uint64_t>(kLogitsBytesMax / (4 * columns), 1, rows);
}

constexpr bool slices_logits(std::uint64_t tokens, std::uint64_t vocabulary) {
  return logits_rows(tokens, vocabulary) < tokens;
}

}  // namespace isthmus::spec
