#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "base/bytes.h"
#include "base/checkpoint_facts.h"
#include "base/done_set.h"
#include "base/ids.h"
#include "base/result.h"
#include "compress/encoded_tensor.h"
#include "protocol/priority.h"
#include "protocol/report.h"
#include "protocol/sample.h"
#include "protocol/view.h"

namespace isthmus::protocol {

// Carried by every worker-to-worker message; the receiver's fences (router/worker_steps.h) are built on it.
struct StepTag {
  SessionId from;
  SessionId to;
  EpochId epoch;  // of the sender's view
  StepId step;
  std::uint32_t attempt = 0;
  friend bool operator==(const StepTag&, const StepTag&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("from", self.from);
    visit("to", self.to);
    visit("epoch", self.epoch);
    visit("step", self.step);
    visit("attempt", self.attempt);
  }
};

// How busy a stage replica is, so that the replicas before it can share out their work (router/hop_choice.h).
struct Load {
  std::uint64_t backlog_us = 0;  // device time of what it holds and has not finished
  std::uint64_t service_us = 0;  // device time of one microbatch, moving average; 0: it has done none yet
  bool slow = false;             // it has become several times slower in this step
  friend bool operator==(const Load&, const Load&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("backlog_us", self.backlog_us);
    visit("service_us", self.service_us);
    visit("slow", self.slow);
  }
};

// The messages of the step protocol (docs/protocol.md). `n` numbers the sender's choices of a successor for this
// microbatch, from 1; replies echo it.
struct Forward {
  StepTag tag;
  MicrobatchId microbatch;
  std::uint32_t n = 0;
  bool again = false;  // an earlier holder may have sent this microbatch downstream: search before forwarding
  compress::EncodedTensor tensor;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit.flat(self.tag);
    visit("microbatch", self.microbatch);
    visit("n", self.n);
    visit("again", self.again);
    visit.flat(self.tensor.header);
    visit("values", self.tensor.values);
    visit("tokens", self.tensor.tokens);
  }
};
struct Backward {
  StepTag tag;
  MicrobatchId microbatch;
  compress::EncodedTensor tensor;  // values only
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit.flat(self.tag);
    visit("microbatch", self.microbatch);
    visit.flat(self.tensor.header);
    visit("values", self.tensor.values);
  }
};
// About the n-th choice of a successor for a microbatch …
struct OfChoice {
  StepTag tag;
  MicrobatchId microbatch;
  std::uint32_t n = 0;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit.flat(self.tag);
    visit("microbatch", self.microbatch);
    visit("n", self.n);
  }
};
// … with the sender's load.
struct OfChoiceAndLoad {
  StepTag tag;
  MicrobatchId microbatch;
  std::uint32_t n = 0;
  Load load;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit.flat(self.tag);
    visit("microbatch", self.microbatch);
    visit("n", self.n);
    visit.flat(self.load);
  }
};
struct Ask : OfChoice {};
struct Held : OfChoiceAndLoad {};
struct Free : OfChoice {};
// The sender would rather give the microbatch to another replica.
struct Cancel : OfChoice {};
// The replier does not hold the microbatch and refuses every Forward up to this n: the answer to Cancel …
struct Cancelled : OfChoiceAndLoad {};
// … and, unasked, to a Forward that comes when its queue is full.
struct Busy : OfChoiceAndLoad {};
// The forward pass has begun, so the microbatch stays.
struct TooLate : OfChoice {};
// Measures a link and asks for the load; answered at once.
struct Probe {
  StepTag tag;
  std::uint64_t sent_us = 0;  // the sender's clock
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit.flat(self.tag);
    visit("sent_us", self.sent_us);
  }
};
inline constexpr std::uint64_t kUnasked = UINT64_MAX;
struct Receipt {
  StepTag tag;
  // Echoed; kUnasked: the sender has just become much slower or faster, and says so by itself.
  std::uint64_t sent_us = 0;
  Load load;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit.flat(self.tag);
    visit("sent_us", self.sent_us);
    visit.flat(self.load);
  }
};

// Combining the gradients of a stage's replicas (router/combination.h). The epoch of the tag names the combination.
struct OfSlice {
  StepTag tag;
  std::uint32_t slice = 0;
  bool finite = true;
  compress::EncodedTensor tensor;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit.flat(self.tag);
    visit("slice", self.slice);
    visit("finite", self.finite);
    visit("values", self.tensor.values);
  }
};
struct Part : OfSlice {};   // the sender's own sum
struct Total : OfSlice {};  // the stage's sum

// Something that a worker asks another one for, small enough to be sent in one go.
enum class PieceKind : std::uint8_t {
  kSnapshot,   // kPieceBytes of weights and optimizer state at `version`; `index` counts them
  kUpdate,     // kPieceBytes of what the stage's replicas agreed on, a gradient or a movement, that made `version`
  kInput,      // the journal's forward tensor of microbatch `index` in step `version`
  kGradient,   // the journal's gradient of that microbatch
  kOwnUpdate,  // kPieceBytes of how the sender's weights moved up to `version` (router/outer_exchange.h)
  kAgreement,  // kPieceBytes of what the owner of the slice made of all own updates
  kVerdict,    // that owner's digest of it
};
struct Piece {
  PieceKind kind = PieceKind::kSnapshot;
  std::uint64_t version = 0;
  std::uint32_t attempt = 0;  // journal pieces only: the attempt that was committed
  std::uint32_t index = 0;
  std::uint32_t slice = 0;  // own updates, agreements and verdicts only
  friend auto operator<=>(const Piece&, const Piece&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("kind", self.kind, PieceKind::kVerdict);
    visit("version", self.version);
    visit("attempt", self.attempt);
    visit("slice", self.slice);
    visit("index", self.index);
  }
};
// A tensor may have to wait for one: 26 ms at 20 Mb/s.
inline constexpr std::uint64_t kPieceBytes = 64 * 1024;
inline std::uint32_t piece_count(std::uint64_t bytes) {
  return static_cast<std::uint32_t>((bytes + kPieceBytes - 1) / kPieceBytes);
}

struct OfPiece {
  SessionId from;
  SessionId to;
  std::uint32_t timeline = 0;
  Piece piece;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("from", self.from);
    visit("to", self.to);
    visit("timeline", self.timeline);
    visit.flat(self.piece);
  }
};
struct Fetch : OfPiece {};
struct Chunk {
  SessionId from;
  SessionId to;
  std::uint32_t timeline = 0;
  Piece piece;
  std::string digest;              // snapshot, agreement and verdict: of the whole
  Commit commit;                   // update: what was decided about it
  compress::EncodedTensor tensor;  // the journal's: as it crossed the boundary; else values only
  std::uint64_t whole = 0;         // update: bytes of all its pieces
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("from", self.from);
    visit("to", self.to);
    visit("timeline", self.timeline);
    visit.flat(self.piece);
    visit("digest", self.digest, Most::kDigest);
    visit("whole", self.whole);
    visit("commit", self.commit);
    visit.flat(self.tensor.header);
    visit("values", self.tensor.values);
    visit("tokens", self.tensor.tokens);
  }
};
// The sender does not have the piece and will not get it.
struct Absent : OfPiece {};

// One message of a link's measurement (router/link_probe.h), answered at once by an Echo with as many bytes as it asks
// for.
struct Sounding {
  SessionId from;
  SessionId to;
  std::uint32_t serial = 0;
  std::uint64_t reply_bytes = 0;
  compress::EncodedTensor tensor;  // values only, of no meaning
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("from", self.from);
    visit("to", self.to);
    visit("serial", self.serial);
    visit("reply_bytes", self.reply_bytes);
    visit("values", self.tensor.values);
  }
};
struct Echo {
  SessionId from;
  SessionId to;
  std::uint32_t serial = 0;  // of the Sounding
  compress::EncodedTensor tensor;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("from", self.from);
    visit("to", self.to);
    visit("serial", self.serial);
    visit("values", self.tensor.values);
  }
};

// A head asks the coordinator, who alone has the shards, for token ids of one step, or (kHeldOut) of evaluations …
struct TokenRequest {
  StepId step;
  DoneSet microbatches;  // as Sample counts them
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("step", self.step);
    visit("microbatches", self.microbatches);
  }
};
// … and gets them one by one.
struct TokenIds {
  Sample sample;
  compress::EncodedTensor tensor;  // token ids only
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit.flat(self.sample);
    visit.flat(self.tensor.header);
    visit("values", self.tensor.values);
    visit("tokens", self.tensor.tokens);
  }
};

// Asks for one piece (kPieceBytes) of a checkpoint: the coordinator a worker, for the vault; a worker whose stage is
// empty the coordinator. …
struct CheckpointRequest {
  std::uint64_t version = 0;
  std::uint32_t timeline = 0;
  std::uint32_t index = 0;  // kFactsOnly: none of it, only what it is
  friend bool operator==(const CheckpointRequest&, const CheckpointRequest&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("version", self.version);
    visit("timeline", self.timeline);
    visit("index", self.index);
  }
};
inline constexpr std::uint32_t kFactsOnly = UINT32_MAX;
// … and the answer.
struct CheckpointPiece {
  CheckpointFacts facts;  // of 0 bytes: the sender has not got it
  std::uint32_t index = 0;
  compress::EncodedTensor tensor;  // values only
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("version", self.facts.version);
    visit("timeline", self.facts.timeline);
    visit("bytes", self.facts.bytes);
    visit("digest", self.facts.digest, Most::kDigest);
    visit("index", self.index);
    visit("values", self.tensor.values);
  }
};

// Sealed.
TokenIds token_ids(const Sample& sample, Bytes ids);

using Message = std::variant<View, Report, Forward, Backward, Ask, Held, Free, Cancel, Cancelled, Busy, TooLate, Probe,
                             Receipt, Part, Total, Fetch, Chunk, Absent, Sounding, Echo, TokenRequest, TokenIds,
                             CheckpointRequest, CheckpointPiece>;

// The tensor that travels as payload behind the body; null if the message has none.
const compress::EncodedTensor* tensor_of(const Message& message);
compress::EncodedTensor* tensor_of(Message& message);

Priority priority_of(const Message& message);

// What a message's bytes are counted as.
enum class Traffic : std::uint8_t { kControl, kBoundary, kSync, kState };
Traffic traffic_of(const Message& message);

}  // namespace isthmus::protocol
