#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "scheduler/plan.h"
#include "wire/message.h"

namespace isthmus {

// What a run's messages can hold at most. Checked before anything is allocated.
struct Limits {
  std::uint64_t token_bytes = 0;     // exact, of a Forward
  std::uint64_t forward_bytes = 0;   // exact
  std::uint64_t backward_bytes = 0;  // exact
  std::uint32_t microbatches = 0;    // of a step, evaluation included
  std::uint32_t stages = 0;
  std::uint32_t members = 0;
  std::uint64_t part_bytes = 0;   // largest of any stage's whole sum
  std::uint64_t total_bytes = 0;  // likewise
  std::uint32_t units = 0;  // separately hashed pieces of the model

  static Limits of(const Plan& plan);
};

// Texts are cut to this many bytes.
inline constexpr std::size_t kTextMax = 4096;

// Messages whose bodies are alike: about a microbatch's n-th way to the next stage, with or without the sender's load; about a piece
// of what another replica or neighbour keeps.
template <class Body>
concept Numbered = requires(const Body& body) {
  body.microbatch;
  body.n;
};
template <class Body>
concept Loaded = requires(const Body& body) { body.load; };
template <class Body>
concept OfState = requires(const Body& body) { body.piece; };

// A message is a small msgpack array (the body) and, for those that carry a tensor, payload: values, then tokens.
Bytes encode_body(const Message& message);

struct DecodedBody {
  Message message;  // EncodedTensors still empty
  std::uint64_t values_bytes = 0;
  std::uint64_t tokens_bytes = 0;
};
Result<DecodedBody> decode_body(std::uint8_t kind, ByteView body, const Limits& limits);

}  // namespace isthmus
