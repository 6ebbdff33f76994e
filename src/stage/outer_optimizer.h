#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "compress/combine_updates.h"
#include "compress/update_slices.h"
#include "runner/stage_compute.h"
#include "spec/run_spec.h"
#include "stage/rehearsed_liar.h"

namespace isthmus::stage {

// What a stage replica keeps, between syncs, to agree with its siblings on the stage's weights while it takes steps of
// its own: the anchor, the weights that all of them agreed on last; the momentum of what they agreed on (diloco, arXiv
// 2311.08105); what of its updates it has not told yet (sparseloco, arXiv 2508.15706), unless that stays in its
// weights. Anchor and momentum are the same bits on every replica. Weights come in as one flat array, the stage's
// tensors one after the other. The compute thread's; no libtorch.
class OuterOptimizer final : public runner::OuterStep {
 public:
  // REQUIRES: the run is resolved, sync.mode is not exact. `liar`: what to tell the siblings instead.
  OuterOptimizer(const spec::RunSpec& run, std::vector<std::uint64_t> tensors, std::unique_ptr<RehearsedLiar> liar);

  // These are agreed on: initial weights, or a checkpoint's. Momentum begins anew.
  void begin(std::vector<float> weights);

  // How far the weights of `version` are from the anchor, slice by slice: what siblings are told. `microbatches`: what
  // they are worth.
  std::vector<SharedBytes> updates(std::uint64_t version, std::span<const float> weights, std::uint32_t microbatches);
  Agreement agree(std::uint64_t version, std::uint32_t slice, const std::vector<SharedBytes>& updates) override;
  Result<Agreement> take(std::uint64_t version, std::uint32_t slice, const SharedBytes& agreement) override;
  Status take_all(std::uint64_t version, const SharedBytes& outcome) override;
  // Of the anchor that apply() makes.
  std::string digest() const override;
  // Moves the anchor, and the weights the sync is about to it, but for what stays in them. REQUIRES: every slice was
  // agreed on.
  void apply(std::span<float> weights);

  // Anchor, then momentum, as fp32: what makes another replica one of these. It counts after sync.warmup syncs.
  SharedBytes state() const;
  std::uint64_t state_bytes() const { return 4 * (anchor_.size() + momentum_.size()); }
  Status restore(ByteView state);
  const std::vector<float>& anchor() const { return anchor_; }
  const std::vector<float>& momentum() const { return momentum_; }
  // From a checkpoint. REQUIRES: as many as there are.
  void set(std::vector<float> anchor, std::vector<float> momentum);

 private:
  const compress::UpdateSlices& slices() const { return version_ == steps_ ? last_ : regular_; }
  bool keeps_in_weights() const { return sync_.residual == "weights"; }
  void begin_sync(std::uint64_t version);
  std::uint64_t offset(std::uint32_t slice) const;
  // Calls visit(place in the stage, place among the sync's numbers, how many) for what the sync is about.
  template <class Visit>
  void for_each_stretch(Visit&& visit) const;
  void accuse_copies(std::uint32_t slice, const std::vector<SharedBytes>& updates,
                     std::vector<std::string>& offences) const;

  const spec::RunSpec::Sync sync_;
  const std::uint32_t microbatches_max_;  // of a sync
  const std::uint64_t steps_;
  const compress::UpdateSlices regular_;
  const compress::UpdateSlices last_;  // of the run's last sync
  const std::unique_ptr<RehearsedLiar> liar_;
  std::vector<float> anchor_;
  std::vector<float>
      residual_;  // sparse: not told yet; kept from sync to sync in memory, or until it is back in the weights
  std::vector<float> momentum_;                        // empty without
  std::uint32_t warming_ = 0;                          // syncs at which this replica does not count yet
  std::uint64_t version_ = 0;                          // whose updates are being agreed on
  std::vector<float> common_;                          // what was agreed on, slice after slice
  std::uint32_t counted_ = 0;                          // updates that it was made of
  std::vector<std::vector<SharedBytes>> told_;         // by slice: all updates of this sync …
  std::vector<std::vector<SharedBytes>> told_before_;  // … and of the one before
};

}  // namespace isthmus::stage
