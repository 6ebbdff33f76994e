#pragma once

#include <cstdint>
#include <map>
#include <set>

#include "base/ids.h"
#include "base/time.h"
#include "compress/encoded_tensor.h"

namespace isthmus::router {

// How far a microbatch has come on this replica's device. Only ever forward, but for a new record.
enum class Progress : std::uint8_t {
  kUnread,        // only at the head: its token ids are not here yet
  kWaiting,       // for its F
  kForward,       // F runs
  kForwardDone,   // … and its output is there
  kEvaluated,     // nothing follows: it does not train
  kGradientHere,  // the gradient of its output is there (at the tail: F is done)
  kReturned,      // I is done, and the gradient of its input is there
  kAccumulated,   // W is in the accumulator
};

// Where its output is, for all this replica knows.
enum class Hop : std::uint8_t {
  kHere,        // nobody has it: F is not done, the next stage has no replica, or all of them were too busy
  kSearching,   // an earlier holder of the microbatch may have sent it: every replica of the next stage is asked
  kSent,        // to the successor, who has said nothing
  kHeld,        // the successor said that it holds it
  kCancelling,  // the successor was asked to let it go
  kTooLate,     // … and will not
};

// What a stage replica holds of one microbatch until its step commits. `input`, `sent` and `returned` are custody:
// kept so that a replacement of a dead neighbour can be served without anybody computing twice.
struct StepRecord {
  Progress progress = Progress::kWaiting;
  SessionId predecessor = kNoSession;  // to whom the gradient goes; none at the head
  compress::EncodedTensor input;       // as received; at the head its token ids alone
  compress::EncodedTensor sent;        // sent forward
  compress::EncodedTensor received;    // gradient that came back
  compress::EncodedTensor returned;    // gradient sent back

  Hop hop = Hop::kHere;
  SessionId successor = kNoSession;
  bool again = false;   // an earlier holder may have sent this microbatch downstream: search before forwarding
  std::uint32_t n = 0;  // number of the latest choice of a successor
  std::set<SessionId> answered_free;
  std::set<SessionId> refused;  // replicas that were too busy, since the last pause
  Time ask_due = kNever;
  Time retry_due = kNever;  // every replica was too busy: choose again then
  Time sent_at{};
  std::uint64_t in_flight = 0;  // bytes sent to anybody and not confirmed then, this one's included

  bool forward_started() const { return progress >= Progress::kForward; }
  bool forward_done() const { return progress >= Progress::kForwardDone; }
  bool gradient_here() const { return progress >= Progress::kGradientHere; }
  bool returned_ready() const { return progress >= Progress::kReturned; }
  bool done() const { return progress == Progress::kEvaluated || progress == Progress::kAccumulated; }
};
using StepRecords = std::map<MicrobatchId, StepRecord>;

}  // namespace isthmus::router
