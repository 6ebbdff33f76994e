#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "protocol/plan.h"
#include "runner/stage_compute.h"
#include "sim/arithmetic.h"

namespace isthmus::sim {

// A stage whose numbers show every mistake (sim/arithmetic.h). What its jobs cost in time is the cluster's.
class SimulatedStage final : public runner::StageCompute, private runner::OuterStep {
 public:
  // With initial weights.
  SimulatedStage(const protocol::Plan& plan, std::uint64_t seed, StageId stage, const protocol::DeviceFigures& device);

  const Weights& weights() const { return weights_; }
  // What replicas that step on their own agreed on last.
  const Weights& anchor() const { return anchor_; }
  // Microbatches in the running step's sum.
  const std::multiset<std::uint32_t>& in_sum() const { return in_sum_; }

  // What the newest apply() was told, and how many microbatches its own sum had.
  struct Taken {
    bool apply = false;
    double scale = 0;
    std::size_t microbatches = 0;
  };
  const Taken& taken() const { return taken_; }

  protocol::DeviceFigures measure() override { return device_; }
  Result<ForwardResult> forward(StepId step, MicrobatchId m, bool training,
                                const compress::EncodedTensor& input) override;
  Result<compress::EncodedTensor> input_gradient(MicrobatchId m, const compress::EncodedTensor& gradient) override;
  void weight_gradient(MicrobatchId m) override;
  Sum close() override;
  SharedBytes add(const std::vector<SharedBytes>& parts) const override;
  Prepared prepare(const std::vector<SharedBytes>& totals, bool finite) override;
  SharedBytes total() const override;
  void apply(const protocol::Commit& commit, double learning_rate) override;
  runner::OuterStep* outer() override { return local() ? this : nullptr; }
  std::vector<SharedBytes> updates(std::uint64_t version) override;
  void settle_sync() override;
  void drop_step() override;
  store::StageTensors copy() const override;
  Status load(const store::LoadedCheckpoint& checkpoint) override;
  SharedBytes state() const override;
  Status restore(ByteView state) override;
  std::vector<protocol::UnitDigest> weight_digests() const override;

 private:
  Agreement agree(std::uint64_t version, std::uint32_t slice, const std::vector<SharedBytes>& updates) override;
  Result<Agreement> take(std::uint64_t version, std::uint32_t slice, const SharedBytes& agreement) override;
  Status take_all(std::uint64_t version, const SharedBytes& outcome) override;
  std::string digest() const override;

  bool local() const { return plan_.stages[stage_.value].local; }
  bool tail() const { return stage_ == plan_.last_stage(); }

  const protocol::Plan& plan_;
  const std::uint64_t seed_;
  const StageId stage_;
  const protocol::DeviceFigures device_;
  Weights weights_;
  Weights sum_;
  std::multiset<std::uint32_t> in_sum_;
  std::map<MicrobatchId, std::uint64_t> inputs_;
  std::map<MicrobatchId, std::uint64_t> gradients_;
  std::optional<Weights> combined_;  // what apply uses instead of the sum
  bool bad_ = false;                 // the sum is not finite
  StepId step_;                      // of the newest F
  Taken taken_;
  // Replicas that step on their own: what they agreed on last, what every slice will add to it, and what this one has
  // done since.
  Weights anchor_;
  std::vector<std::uint64_t> agreed_;
  std::uint32_t own_microbatches_ = 0;
};

}  // namespace isthmus::sim
