#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "protocol/fields.h"
#include "protocol/message.h"
#include "protocol/plan.h"

namespace isthmus::wire {

// What a run's messages can hold at most. Checked before anything is allocated.
struct Limits {
  std::uint64_t token_bytes = 0;     // exact, of a Forward and of TokenIds
  std::uint64_t forward_bytes = 0;   // exact
  std::uint64_t backward_bytes = 0;  // exact
  std::uint32_t microbatches = 0;    // of a step, evaluation included
  std::uint32_t stages = 0;
  std::uint32_t members = 0;
  std::uint64_t part_bytes = 0;   // largest of any stage's whole sum
  std::uint64_t total_bytes = 0;  // likewise
  std::uint32_t units = 0;        // separately hashed pieces of the model

  static Limits of(const protocol::Plan& plan);
  // The bounds of lists and texts (protocol/fields.h).
  std::size_t elements(protocol::Most most) const;
  static std::size_t bytes(protocol::Most most);
};

// A message is a small msgpack array (the body) and, for those that carry a tensor, payload: values, then tokens.
Bytes encode_body(const protocol::Message& message);

struct DecodedBody {
  protocol::Message message;  // without its payload
  std::uint64_t values_bytes = 0;
  std::uint64_t tokens_bytes = 0;
};
Result<DecodedBody> decode_body(std::uint8_t kind, ByteView body, const Limits& limits);

}  // namespace isthmus::wire
