#include "stage/emulated_stage.h"

#include <chrono>
#include <cstring>
#include <map>
#include <thread>
#include <utility>

#include "base/counter_random.h"
#include "base/digest.h"
#include "base/little_endian.h"
#include "scheduler/planner/make_plan.h"
#include "stage/available_memory.h"
#include "stage/outer_optimizer.h"

namespace isthmus::stage {

namespace {

using Clock = std::chrono::steady_clock;
// Numbers that move differently; then they begin anew.
constexpr std::size_t kMovements = 65536;

std::uint64_t name_of(const spec::RunSpec& run, StepId step, MicrobatchId m, bool training) {
  Bytes bytes;
  append_le(bytes, step.value);
  append_le(bytes, m.value);
  append_le(bytes, std::uint32_t{training});
  return checksum(bytes, run.run.seed);
}

std::uint64_t name_of(const spec::RunSpec& run, const protocol::Sample& sample) {
  return ~name_of(run, sample.step, sample.microbatch, sample.step != protocol::kHeldOut);
}

// The name, then zeros: the size is what matters on the wire.
Bytes payload(std::uint64_t name, std::uint64_t bytes) {
  Bytes content(bytes, 0);
  if (bytes >= sizeof name) std::memcpy(content.data(), &name, sizeof name);
  return content;
}

class EmulatedStage final : public runner::StageCompute {
 public:
  EmulatedStage(const spec::RunSpec& run, const protocol::Plan& plan, StageId stage, ReplicaId replica, double slowdown)
      : run_(run),
        plan_(plan),
        stage_(stage),
        replica_(replica),
        first_layer_(plan.stages[stage.value].first_layer),
        end_layer_(plan.stages[stage.value].end_layer),
        slowdown_(slowdown) {
    if (!planner::is_local(run, stage)) return;
    outer_ = std::make_unique<OuterOptimizer>(run, planner::synced_tensors(run, stage),
                                              RehearsedLiar::of(run, stage, replica));
    outer_->begin(std::vector<float>(run.emulated.parameters));
  }

  // The stage's times are those of all its layers.
  protocol::DeviceFigures measure() override {
    const auto& e = run_.emulated;
    const protocol::OperationCosts stage{seconds(e.forward_ms * 1e-3), seconds(e.input_gradient_ms * 1e-3),
                                         seconds(e.weight_gradient_ms * 1e-3)};
    return {.memory_bytes = available_memory(), .layer = stage * (slowdown() / (end_layer_ - first_layer_))};
  }

  Result<ForwardResult> forward(StepId step, MicrobatchId m, bool training,
                                const compress::EncodedTensor& input) override {
    const auto start = Clock::now();
    if (step > step_) {
      step_ = step;
      operations_ = 0;
    }
    const std::uint64_t name = name_of(run_, step, m, training);
    if (stage_ != StageId(0)) {
      if (auto fits = check(input.values, name, plan_.forward_bytes); !fits) return tl::unexpected(fits.error());
    }
    const std::uint64_t text = name_of(run_, {training ? step : protocol::kHeldOut, m});
    if (auto fits = check(input.tokens, text, plan_.token_bytes); !fits) return tl::unexpected(fits.error());
    ForwardResult result;
    if (stage_ == plan_.last_stage())
      result.loss =
          protocol::MicrobatchLoss{m, static_cast<double>(plan_.tokens_per_microbatch), plan_.tokens_per_microbatch};
    else
      result.output = {share(payload(name, plan_.forward_bytes)), input.tokens};
    if (training) held_[m] = name;
    take(start, run_.emulated.forward_ms);
    return result;
  }

  Result<compress::EncodedTensor> input_gradient(MicrobatchId m, const compress::EncodedTensor& gradient) override {
    const auto start = Clock::now();
    const std::uint64_t name = ~held_.at(m);
    if (stage_ != plan_.last_stage())
      if (auto fits = check(gradient.values, name, plan_.backward_bytes); !fits) return tl::unexpected(fits.error());
    compress::EncodedTensor result;
    if (stage_ != StageId(0)) result.values = share(payload(name, plan_.backward_bytes));
    take(start, run_.emulated.input_gradient_ms);
    return result;
  }

  void weight_gradient(MicrobatchId m) override {
    const auto start = Clock::now();
    sum_ += held_.at(m);
    ++in_sum_;
    held_.erase(m);
    take(start, run_.emulated.weight_gradient_ms);
  }

  Sum close() override { return {number(sum_), true}; }

  SharedBytes add(const std::vector<SharedBytes>& parts) const override {
    if (parts.empty() || parts.front()->empty()) return share({});
    std::uint64_t total = 0;
    for (const auto& part : parts) total += number_in(part);
    return number(total);
  }

  Prepared prepare(const std::vector<SharedBytes>& totals, bool finite) override {
    chosen_ = sum_;
    for (const auto& slice : totals)
      if (!slice->empty()) chosen_ = number_in(slice);
    Prepared prepared;
    prepared.finite = finite;
    for (const auto& unit : units()) prepared.norms.push_back({unit, 0.0});
    prepared.sum_digest = std::to_string(chosen_);
    return prepared;
  }

  SharedBytes total() const override { return number(chosen_); }

  runner::OuterStep* outer() override { return outer_.get(); }

  // Movements of the right number and size; what they are is nobody's.
  std::vector<SharedBytes> updates(std::uint64_t version) override {
    std::vector<float> weights = outer_->anchor();
    const CounterRandom random(run_.run.seed + version,
                               fmt::format("movements of stage {} replica {}", stage_, replica_));
    std::vector<float> movements(kMovements);
    for (std::size_t i = 0; i < kMovements; ++i) movements[i] = static_cast<float>(1e-3 * random.normal(i));
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] += movements[i % kMovements];
    return outer_->updates(version, weights, std::exchange(microbatches_, 0));
  }

  void settle_sync() override {
    std::vector<float> weights(outer_->anchor().size());
    outer_->apply(weights);
  }

  void apply(const protocol::Commit& commit, double) override {
    microbatches_ += in_sum_;
    // Where replicas step on their own, the weights of each are its own.
    if (outer_) return drop_step();
    // Weights that depend on every microbatch of every step: a lost or doubled one shows in the digest.
    if (commit.apply) weights_ = (weights_ ^ chosen_) * 0x9E3779B97F4A7C15 + commit.step.value;
    drop_step();
  }

  void drop_step() override {
    held_.clear();
    in_sum_ = 0;
    sum_ = 0;
  }

  store::StageTensors copy() const override {
    const auto bytes = share(weights_bytes());
    return {{{"weights", {2}, *bytes}}, {}, bytes.owner()};
  }

  Status load(const store::LoadedCheckpoint& loaded) override {
    const auto at = loaded.weights.tensors.find("weights");
    if (at == loaded.weights.tensors.end() || at->second.bytes.size() != 8)
      return fail("the checkpoint is not of an emulated stage");
    ByteView in = at->second.bytes;
    weights_ = *take_le<std::uint64_t>(in);
    return {};
  }

  SharedBytes state() const override {
    if (outer_) return outer_->state();
    return share(payload(weights_, plan_.stages[stage_.value].state_bytes));
  }
  Status restore(ByteView state) override {
    if (outer_) return outer_->restore(state);
    const std::uint64_t expected = plan_.stages[stage_.value].state_bytes;
    if (state.size() != expected) return fail("a state of {} bytes, expected {}", state.size(), expected);
    drop_step();
    weights_ = *take_le<std::uint64_t>(state);
    return {};
  }

  std::vector<protocol::UnitDigest> weight_digests() const override {
    std::vector<protocol::UnitDigest> digests;
    const std::string hex = outer_ ? outer_->digest() : digest_hex(weights_bytes());
    for (const auto& unit : units()) digests.push_back({unit, hex});
    return digests;
  }

 private:
  static Status check(const SharedBytes& values, std::uint64_t name, std::uint64_t bytes) {
    if (values->size() != bytes) return fail("payload of {} bytes, expected {}", values->size(), bytes);
    if (bytes >= sizeof name && std::memcmp(values->data(), &name, sizeof name) != 0)
      return fail("payload of another microbatch than the one it is labelled with");
    return {};
  }

  static SharedBytes number(std::uint64_t value) {
    Bytes bytes;
    append_le(bytes, value);
    return share(std::move(bytes));
  }
  static std::uint64_t number_in(const SharedBytes& bytes) {
    ByteView in = *bytes;
    return take_le<std::uint64_t>(in).value_or(0);
  }

  // From the start of the operation, so that what this process does around it is not added.
  void take(Clock::time_point start, double milliseconds) {
    const std::chrono::duration<double, std::milli> time(milliseconds * slowdown());
    ++operations_;
    std::this_thread::sleep_until(start + std::chrono::duration_cast<Clock::duration>(time));
  }

  double slowdown() const {
    const auto& e = run_.emulated;
    const bool yet = step_.value > e.slow_step || (step_.value == e.slow_step && operations_ >= e.slow_after);
    return e.slow_step == 0 || yet ? slowdown_ : 1;
  }

  std::vector<std::string> units() const {
    std::vector<std::string> units;
    if (stage_ == StageId(0)) units.push_back("embedding");
    for (auto l = first_layer_; l < end_layer_; ++l) units.push_back(fmt::format("layer.{}", l));
    if (stage_ == plan_.last_stage()) units.push_back("head");
    return units;
  }
  Bytes weights_bytes() const {
    Bytes bytes;
    append_le(bytes, weights_);
    return bytes;
  }

  const spec::RunSpec run_;
  const protocol::Plan plan_;
  const StageId stage_;
  const ReplicaId replica_;
  const std::uint32_t first_layer_;
  const std::uint32_t end_layer_;
  std::map<MicrobatchId, std::uint64_t> held_;
  const double slowdown_;
  StepId step_;                   // the newest one that it has seen
  std::uint64_t operations_ = 0;  // of that step
  std::uint64_t sum_ = 0;
  std::unique_ptr<OuterOptimizer> outer_;  // replicas that step on their own
  std::uint32_t in_sum_ = 0;               // microbatches of the step
  std::uint32_t microbatches_ = 0;         // since the last sync
  std::uint64_t chosen_ = 0;               // what apply uses
  std::uint64_t weights_ = 0;
};

}  // namespace

Bytes emulated_tokens(const spec::RunSpec& run, const protocol::Plan& plan, const protocol::Sample& sample) {
  return payload(name_of(run, sample), plan.token_bytes);
}

std::unique_ptr<runner::StageCompute> make_emulated_stage(const spec::RunSpec& run, const protocol::Plan& plan,
                                                          StageId stage, ReplicaId replica, double slowdown) {
  return std::make_unique<EmulatedStage>(run, plan, stage, replica, slowdown);
}

}  // namespace isthmus::stage
