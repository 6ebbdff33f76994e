#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "compress/encoded_tensor.h"
#include "protocol/measurements.h"
#include "protocol/report.h"
#include "protocol/view.h"
#include "store/checkpoint_store.h"

namespace isthmus::runner {

// How replicas that step on their own agree on the stage's weights, slice by slice, while they go on. Updates and
// agreements are bytes of siblings: what cannot be one is refused or counts for nothing.
class OuterStep {
 public:
  virtual ~OuterStep() = default;

  struct Agreement {
    SharedBytes bytes;  // null where every replica makes its own
    std::string digest;
    std::vector<std::string> offences;  // by update; empty: none
  };
  // Makes the slice's common update of all replicas' own ones, in this order. What cannot be one counts for nothing and
  // is an offence.
  virtual Agreement agree(std::uint64_t version, std::uint32_t slice, const std::vector<SharedBytes>& updates) = 0;
  // Takes it as another replica made it.
  virtual Result<Agreement> take(std::uint64_t version, std::uint32_t slice, const SharedBytes& agreement) = 0;
  // Takes all of a sync that it missed: what siblings kept of it (router/outer_exchange.h, outcome()).
  virtual Status take_all(std::uint64_t version, const SharedBytes& outcome) = 0;
  // Of the weights that were agreed on. REQUIRES: every slice was, for this version.
  virtual std::string digest() const = 0;
};

// What a stage replica computes. One owner, the worker's compute thread; every call blocks until its result is
// ready. Implementations: TorchStage (the model), EmulatedStage (time and bytes of it, no arithmetic) and the
// simulator's, whose numbers show every mistake.
//
// Errors returned are those of foreign bytes; the caller decides. Weights change only in apply(),
// settle_sync(), load() and restore().
class StageCompute {
 public:
  virtual ~StageCompute() = default;

  // What the device has, and what a layer, and the stage's embedding or head, takes for a microbatch here and now.
  // Tries it out for a moment; everything the stage computes is as without. Before the first microbatch.
  virtual protocol::DeviceFigures measure() = 0;

  struct ForwardResult {
    compress::EncodedTensor output;                // for the next stage; empty at the tail
    std::optional<protocol::MicrobatchLoss> loss;  // tail only
  };
  // Layers forward of one microbatch. `input` comes from the previous stage; at the head it has the microbatch's token
  // ids and no values. Training: keeps what the gradients need. Evaluation (`training` false): keeps nothing;
  // `microbatch` then counts evaluation microbatches from 0 and the tokens are held-out ones.
  virtual Result<ForwardResult> forward(StepId step, MicrobatchId microbatch, bool training,
                                        const compress::EncodedTensor& input) = 0;
  // Gradient of the stage's input. `gradient` comes from the next stage; empty at the tail, where the loss is the
  // sum over the microbatch's tokens divided by the step's training tokens. Empty result at the head.
  virtual Result<compress::EncodedTensor> input_gradient(MicrobatchId microbatch,
                                                         const compress::EncodedTensor& gradient) = 0;
  // Adds the microbatch's weight gradients to the accumulator and frees what was kept for it.
  virtual void weight_gradient(MicrobatchId microbatch) = 0;

  struct Prepared {
    std::vector<protocol::UnitNorm> norms;  // one per unit of the stage, in the order of the layers
    bool finite = true;
    std::string sum_digest;  // deterministic mode; empty otherwise
  };
  // The worker's own gradient sum of the step: plan.part_width bytes per parameter, in the order of the layers. The
  // accumulator stays as it is; more may be added later.
  struct Sum {
    SharedBytes bytes;
    bool finite = true;
  };
  virtual Sum close() = 0;
  // Adds slices of sums (equal lengths, any number) in this order: plan.total_width bytes per parameter.
  virtual SharedBytes add(const std::vector<SharedBytes>& parts) const = 0;
  // Chooses the gradient that apply() uses: the slices that together are the stage's sum, or, without any, the
  // worker's own sum. May be called again with others. REQUIRES: the slices have the stage's length.
  virtual Prepared prepare(const std::vector<SharedBytes>& totals, bool finite) = 0;
  // That gradient, plan.total_width bytes per parameter. After prepare().
  virtual SharedBytes total() const = 0;
  // Runs the optimizer for `commit.step` with the gradient times commit.scale (or leaves the weights alone), then
  // clears all state of the step. `learning_rate` is the step's.
  virtual void apply(const protocol::Commit& commit, double learning_rate) = 0;

  // How replicas that step on their own agree on the weights they had before the running step; null: they do not. The
  // stage tells it its weights and takes those that were agreed on.
  virtual OuterStep* outer() = 0;
  // How the weights of `version` moved since the last sync, by slice. REQUIRES, here and below: outer().
  virtual std::vector<SharedBytes> updates(std::uint64_t version) = 0;
  // Moves the weights to where the replicas agreed; before apply() of the same step.
  virtual void settle_sync() = 0;

  // Forgets everything of the step: kept activations, accumulator. Weights stay.
  virtual void drop_step() = 0;

  // A copy of weights and optimizer state, for a checkpoint: it needs the stage no more.
  virtual store::StageTensors copy() const = 0;
  // Replaces weights and optimizer state by those of a checkpoint, all of it or, on error, nothing.
  virtual Status load(const store::LoadedCheckpoint& checkpoint) = 0;
  // What another replica needs to become one of these, and from one, plan.state_bytes of the stage: weights and
  // optimizer state, or, where replicas step on their own, the weights they agreed on last.
  virtual SharedBytes state() const = 0;
  virtual Status restore(ByteView state) = 0;
  // Digest of each unit's fp32 weights.
  virtual std::vector<protocol::UnitDigest> weight_digests() const = 0;
};

}  // namespace isthmus::runner
