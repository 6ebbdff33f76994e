#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/result.h"
#include "compress/encoded_tensor.h"
#include "scheduler/report.h"
#include "scheduler/view.h"

namespace isthmus {

// Carried by every worker-to-worker message; the receiver's fences (router/worker_steps.h) are built on it.
struct StepTag {
  SessionId from;
  SessionId to;
  EpochId epoch;  // of the sender's view
  StepId step;
  std::uint32_t attempt = 0;
  friend bool operator==(const StepTag&, const StepTag&) = default;
};

// The messages of the step protocol (docs/protocol.md). `n` numbers the sender's choices of a successor for this
// microbatch, from 1; replies echo it.
struct Forward {
  StepTag tag;
  MicrobatchId microbatch;
  std::uint32_t n = 0;
  bool again = false;  // an earlier holder may have sent this microbatch downstream: search before forwarding
  EncodedTensor tensor;
};
struct Backward {
  StepTag tag;
  MicrobatchId microbatch;
  EncodedTensor tensor;  // values only
};
struct Ask {
  StepTag tag;
  MicrobatchId microbatch;
  std::uint32_t n = 0;
};
struct Held {
  StepTag tag;
  MicrobatchId microbatch;
  std::uint32_t n = 0;
};
struct Free {
  StepTag tag;
  MicrobatchId microbatch;
  std::uint32_t n = 0;
};

using Message = std::variant<View, Report, Forward, Backward, Ask, Held, Free>;

// Order in which waiting frames leave an uplink: small control first, then gradients, then activations, then state.
// Ask goes with the activations: it must not overtake the Forward it asks about, or every answer would be "Free".
enum class Priority : std::uint8_t { kControl, kGradient, kActivation, kState };
Priority priority_of(const Message& message);
// Forward and Backward: what `wire_bytes` of metrics.jsonl counts.
bool is_boundary(const Message& message);

}  // namespace isthmus
