#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "router/piece_requests.h"
#include "router/token_supply.h"
#include "router/worker_context.h"

namespace isthmus::router {

// Brings back a stage that has lost all its replicas, without rolling anybody else back: from the version of this
// worker's checkpoint, every committed step again, with the inputs that the previous stage's journals hold, or the
// coordinator's token ids, and the gradients that the next stage's hold. Same weights, same inputs, same decisions: in
// deterministic mode the same bits.
class StageRebuild {
 public:
  StageRebuild(WorkerContext& context, TokenSupply& tokens) : context_(context), tokens_(tokens) {}

  void stop();
  // REQUIRES: not a member, behind, no live replica of the stage. Call on every view and tick. May move `version` on.
  void pursue(std::uint64_t& version, Time now);
  bool received(const protocol::Chunk& chunk, PeerId from, std::uint64_t& version, Time now);
  void received(const protocol::Absent& absent, PeerId from);
  // True if the result was of a repeated operation.
  bool operation_done(const protocol::OperationDone& done);
  void forget_asked(PeerId peer);
  Time next_due() const;
  // A step is being repeated, as far as anybody knows.
  bool works() const { return commit_ && impossible_.empty(); }
  // Why it cannot be done; empty while it may.
  const std::string& impossible() const { return impossible_; }
  std::string progress() const;

 private:
  struct Microbatch {
    std::optional<compress::EncodedTensor> input;
    std::optional<compress::EncodedTensor> gradient;
    bool given = false;  // to the device
  };
  void begin(const protocol::Commit& commit, Time now);
  std::vector<const protocol::Member*> members_of(StageId stage) const;
  // Inputs are asked of the stages before, gradients of those behind, each of the stage on the microbatch's path.
  PieceRequests& of_stage(StageId stage) { return requests_.try_emplace(stage, context_).first->second; }
  PieceRequests& of_piece(const protocol::Piece& piece);
  void lose(const std::string& why, Time now);
  void read_tokens();
  void run_ready();

  WorkerContext& context_;
  TokenSupply& tokens_;
  std::map<StageId, PieceRequests> requests_;
  std::optional<protocol::Commit> commit_;  // of the step that is being repeated, as it concerns this stage
  protocol::StepPaths paths_;               // of that step
  protocol::JobTag tag_;
  std::uint64_t tries_ = 0;
  std::map<std::uint32_t, Microbatch> microbatches_;
  std::uint32_t running_ = 0;   // operations given to the device
  std::uint32_t finished_ = 0;  // microbatches in the sum
  std::string missing_;         // what no neighbour has, and since when
  Time missing_since_ = kNever;
  Time asked_again_{};
  std::string impossible_;
};

}  // namespace isthmus::router
