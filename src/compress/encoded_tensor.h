#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"

namespace isthmus::compress {

// What whoever decodes a payload has to know of it besides its bytes. Travels with them and stands in the journal.
struct PayloadHeader {
  std::uint8_t codec = 0;  // BoundaryCodec::id(); 0: bytes that no codec made
  std::uint32_t era = 0;   // of the tables that the codec used; 0: it has none
  // 128 bits of BLAKE2b over all else: codec, era, both lengths, values, tokens. Zero: not sealed.
  std::array<std::uint8_t, 16> digest{};
  friend bool operator==(const PayloadHeader&, const PayloadHeader&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("codec", self.codec);
    visit("era", self.era);
    visit("digest", self.digest);
  }
};

// What crosses a boundary for one microbatch, ready for the wire. Immutable; cheap to copy, so custody, send queue
// and compute share one buffer.
struct EncodedTensor {
  // Coefficients (forward) or their gradient (backward), in the layout of the run's codec. Null if there are none.
  SharedBytes values;
  // Forward only: sequences × (context + 1) token ids, little-endian, as narrow as the vocabulary allows. They
  // restore E[token] and hold the labels. Null on the way back.
  SharedBytes tokens;
  PayloadHeader header{};

  std::uint64_t bytes() const { return values->size() + tokens->size(); }
};

// Writes the digest, once all else is there.
void seal(EncodedTensor& tensor);
// Refuses a tensor that is not what was sealed.
Status check_seal(const EncodedTensor& tensor);

}  // namespace isthmus::compress
