#include "sim/simulated_stage.h"

#include <utility>

#include "base/digest.h"
#include "base/little_endian.h"

namespace isthmus::sim {

namespace {

// What replicas that step on their own make of their updates: depends on every one, its weight and its place.
std::uint64_t sum_of(const std::vector<SharedBytes>& updates) {
  std::uint64_t sum = 0;
  for (const auto& update : updates) {
    ByteView in = *update;
    const std::uint64_t weight = *take_le<std::uint32_t>(in);
    if (weight > 0) sum = mix(sum, weight * *take_le<std::uint64_t>(in));
  }
  return sum;
}

// The same, of what they kept of a sync.
std::vector<std::uint64_t> agreed_in(bool has_owners, const SharedBytes& outcome) {
  if (has_owners) return from_bytes(*outcome);
  std::vector<SharedBytes> updates;
  for (ByteView rest = *outcome; !rest.empty();) {
    ByteView in = rest;
    const std::size_t size = *take_le<std::uint32_t>(in) == 0 ? 4 : 12;
    updates.push_back(share(Bytes(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(size))));
    rest = rest.subspan(size);
  }
  return {sum_of(updates)};
}

}  // namespace

SimulatedStage::SimulatedStage(const protocol::Plan& plan, std::uint64_t seed, StageId stage,
                               const protocol::DeviceFigures& device)
    : plan_(plan),
      seed_(seed),
      stage_(stage),
      device_(device),
      weights_(initial_weights(seed, stage, plan.stages[stage.value].parameters)),
      sum_(weights_.size(), 0),
      anchor_(weights_) {}

// ------------------------------------------------------------------------------------------------- a step

Result<SimulatedStage::ForwardResult> SimulatedStage::forward(StepId step, MicrobatchId m, bool training,
                                                              const compress::EncodedTensor& input) {
  step_ = step;
  const std::uint64_t number = stage_ == StageId(0) ? decode_tokens(input) : decode(input);
  if (training) inputs_[m] = number;
  ForwardResult result;
  if (tail())
    result.loss = protocol::MicrobatchLoss{m, 1.0, 1};
  else
    result.output = encode(sim::forward(number, fingerprint(weights_)), input.tokens);
  return result;
}

Result<compress::EncodedTensor> SimulatedStage::input_gradient(MicrobatchId m,
                                                               const compress::EncodedTensor& gradient) {
  const std::uint64_t weights = fingerprint(weights_), input = inputs_[m];
  const std::uint64_t number = gradients_[m] = tail() ? loss_gradient(input, weights) : decode(gradient);
  if (stage_ == StageId(0)) return compress::EncodedTensor{};
  return encode(sim::input_gradient(number, input, weights));
}

void SimulatedStage::weight_gradient(MicrobatchId m) {
  const std::uint64_t weights = fingerprint(weights_);
  for (std::size_t p = 0; p < sum_.size(); ++p) sum_[p] += sim::weight_gradient(gradients_[m], inputs_[m], weights, p);
  in_sum_.insert(m.value);
  bad_ = bad_ || (is_bad_step(seed_, step_) && m == MicrobatchId(0));
}

runner::StageCompute::Sum SimulatedStage::close() { return {to_bytes(sum_), !bad_}; }

SharedBytes SimulatedStage::add(const std::vector<SharedBytes>& parts) const {
  Weights total;
  for (const auto& part : parts) {
    const Weights numbers = from_bytes(*part);
    total.resize(numbers.size(), 0);
    for (std::size_t p = 0; p < numbers.size(); ++p) total[p] += numbers[p];
  }
  return to_bytes(total);
}

runner::StageCompute::Prepared SimulatedStage::prepare(const std::vector<SharedBytes>& totals, bool finite) {
  combined_.reset();
  if (!totals.empty()) {
    combined_.emplace();
    for (const auto& slice : totals)
      for (const auto number : from_bytes(*slice)) combined_->push_back(number);
  }
  return {{}, totals.empty() ? !bad_ : finite, std::to_string(fingerprint(combined_ ? *combined_ : sum_))};
}

SharedBytes SimulatedStage::total() const { return to_bytes(combined_ ? *combined_ : sum_); }

void SimulatedStage::apply(const protocol::Commit& commit, double) {
  taken_ = {commit.apply, commit.scale, in_sum_.size()};
  if (commit.apply) {
    add_step(weights_, combined_ ? *combined_ : sum_, commit.scale);
    own_microbatches_ += static_cast<std::uint32_t>(in_sum_.size());
  }
  drop_step();
}

void SimulatedStage::drop_step() {
  sum_.assign(sum_.size(), 0);
  in_sum_.clear();
  inputs_.clear();
  gradients_.clear();
  combined_.reset();
  bad_ = false;
}

// ------------------------------------------------------------------------------------------------- a sync

std::vector<SharedBytes> SimulatedStage::updates(std::uint64_t version) {
  std::vector<SharedBytes> updates;
  for (std::uint32_t slice = 0; slice < plan_.update_bytes(stage_, version).size(); ++slice) {
    Bytes bytes;
    append_le(bytes, own_microbatches_);
    if (own_microbatches_ > 0) append_le(bytes, mix(fingerprint(weights_), slice));
    updates.push_back(share(std::move(bytes)));
  }
  own_microbatches_ = 0;
  agreed_.assign(updates.size(), 0);
  return updates;
}

runner::OuterStep::Agreement SimulatedStage::agree(std::uint64_t version, std::uint32_t slice,
                                                   const std::vector<SharedBytes>& updates) {
  const std::uint64_t sum = agreed_[slice] = sum_of(updates);
  const SharedBytes bytes = to_bytes({sum});
  return {plan_.sparse_sync(version) ? nullptr : bytes, digest_hex(*bytes), std::vector<std::string>(updates.size())};
}

Result<runner::OuterStep::Agreement> SimulatedStage::take(std::uint64_t, std::uint32_t slice,
                                                          const SharedBytes& agreement) {
  agreed_[slice] = from_bytes(*agreement).at(0);
  return Agreement{agreement, digest_hex(*agreement), {}};
}

Status SimulatedStage::take_all(std::uint64_t version, const SharedBytes& outcome) {
  agreed_ = agreed_in(!plan_.sparse_sync(version), outcome);
  return {};
}

std::string SimulatedStage::digest() const { return std::to_string(fingerprint(agreed_)); }

void SimulatedStage::settle_sync() {
  for (const auto agreed : agreed_)
    for (auto& number : anchor_) number = mix(number, agreed);
  weights_ = anchor_;
}

// ----------------------------------------------------------------------------------------- whole versions

store::StageTensors SimulatedStage::copy() const {
  Weights both = weights_;
  both.insert(both.end(), anchor_.begin(), anchor_.end());
  const SharedBytes all = to_bytes(both);
  const ByteView bytes(*all);
  const std::vector<std::int64_t> shape = {2 * std::ssize(weights_)};  // a number is as long as two of a file's
  return {{{"weights", shape, bytes.first(bytes.size() / 2)}},
          {{"anchor", shape, bytes.last(bytes.size() / 2)}},
          all.owner()};
}

Status SimulatedStage::load(const store::LoadedCheckpoint& checkpoint) {
  drop_step();
  weights_ = from_bytes(checkpoint.weights.tensors.at("weights").bytes);
  anchor_ = from_bytes(checkpoint.optimizer.tensors.at("anchor").bytes);
  return {};
}

SharedBytes SimulatedStage::state() const { return to_bytes(local() ? anchor_ : weights_); }

Status SimulatedStage::restore(ByteView state) {
  drop_step();
  weights_ = anchor_ = from_bytes(state);
  return {};
}

std::vector<protocol::UnitDigest> SimulatedStage::weight_digests() const {
  return {{fmt::format("stage {}", stage_), std::to_string(fingerprint(weights_))}};
}

}  // namespace isthmus::sim
