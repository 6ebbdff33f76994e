#include "sim/arithmetic.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/little_endian.h"
#include "protocol/step_paths.h"

namespace isthmus::sim {

// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9E3779B97F4A7C15 + b + 0x7F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

namespace {

std::uint64_t number_in(ByteView bytes) { return bytes.size() == 8 ? *take_le<std::uint64_t>(bytes) : 0; }

}  // namespace

compress::EncodedTensor encode(std::uint64_t number, SharedBytes tokens) {
  Bytes bytes;
  append_le(bytes, number);
  return {share(std::move(bytes)), std::move(tokens)};
}

std::uint64_t decode(const compress::EncodedTensor& tensor) { return number_in(*tensor.values); }

std::uint64_t decode_tokens(const compress::EncodedTensor& tensor) { return number_in(*tensor.tokens); }

SharedBytes to_bytes(const Weights& numbers) {
  Bytes bytes;
  for (const auto n : numbers) append_le(bytes, n);
  return share(std::move(bytes));
}

Weights from_bytes(ByteView bytes) {
  Weights numbers;
  while (const auto number = take_le<std::uint64_t>(bytes)) numbers.push_back(*number);
  return numbers;
}

Weights initial_weights(std::uint64_t seed, StageId stage, std::uint64_t parameters) {
  Weights weights;
  for (std::uint64_t p = 0; p < parameters; ++p) weights.push_back(mix(mix(seed, stage.value), p));
  return weights;
}

std::uint64_t fingerprint(const Weights& weights) {
  std::uint64_t all = 1;
  for (const auto w : weights) all = mix(all, w);
  return all;
}

std::uint64_t head_input(std::uint64_t seed, const protocol::Sample& sample) {
  return mix(mix(seed, sample.step.value), sample.microbatch.value);
}
protocol::TokenIds token_ids(std::uint64_t seed, const protocol::Sample& sample) {
  Bytes bytes;
  append_le(bytes, head_input(seed, sample));
  return protocol::token_ids(sample, std::move(bytes));
}
std::uint64_t forward(std::uint64_t input, std::uint64_t weights) { return mix(mix(input, weights), 1); }
std::uint64_t loss_gradient(std::uint64_t input, std::uint64_t weights) { return mix(mix(input, weights), 2); }
std::uint64_t input_gradient(std::uint64_t gradient, std::uint64_t input, std::uint64_t weights) {
  return mix(mix(gradient, input), mix(weights, 3));
}
std::uint64_t weight_gradient(std::uint64_t gradient, std::uint64_t input, std::uint64_t weights,
                              std::uint64_t parameter) {
  return mix(mix(gradient, input), mix(weights, 4 + parameter));
}
void add_step(Weights& weights, const Weights& sum, double scale) {
  const std::uint64_t factor = scale == 1 ? 0 : std::bit_cast<std::uint64_t>(scale);
  for (std::size_t p = 0; p < weights.size(); ++p) weights[p] = mix(weights[p], sum[p] ^ factor);
}

bool is_bad_step(std::uint64_t seed, StepId step) { return mix(seed ^ 0xBAD, step.value) % 16 == 0; }

Reference::Reference(const protocol::Plan& plan, std::uint64_t seed) : plan_(plan), seed_(seed) {
  versions_.emplace_back();
  for (std::uint32_t s = 0; s < plan.stages.size(); ++s)
    versions_[0].push_back(initial_weights(seed, StageId(s), plan.stages[s].parameters));
}

void Reference::taken(StepId step, const std::vector<StageId>& absent) {
  if (absent_[step] == absent) return;
  absent_[step] = absent;
  if (versions_.size() > step.value) versions_.resize(step.value);
}

void Reference::leave_out(const coordinator::StepRange& steps) {
  left_out_.push_back(steps);
  if (versions_.size() > steps.first.value) versions_.resize(steps.first.value);
}

void Reference::take_step() {
  const StepId step(versions_.size());
  const protocol::StepPaths paths(plan_, step, absent_[step]);
  std::vector<Weights> weights = versions_.back();
  const std::size_t stages = weights.size();
  std::vector<std::uint64_t> prints;
  std::vector<Weights> sums;
  for (const auto& w : weights) {
    prints.push_back(fingerprint(w));
    sums.emplace_back(w.size(), 0);
  }
  for (std::uint32_t m = 0; m < plan_.training_count(step); ++m) {
    const auto visits = [&](std::size_t s) {
      return paths.visits(MicrobatchId(m), StageId(static_cast<std::uint32_t>(s)));
    };
    std::vector<std::uint64_t> inputs = {head_input(seed_, {step, MicrobatchId(m)})};
    for (std::size_t s = 0; s + 1 < stages; ++s)
      inputs.push_back(visits(s) ? forward(inputs[s], prints[s]) : inputs[s]);
    std::uint64_t gradient = loss_gradient(inputs.back(), prints.back());
    for (std::size_t s = stages; s-- > 0;) {
      if (!visits(s)) continue;
      for (std::size_t p = 0; p < sums[s].size(); ++p) sums[s][p] += weight_gradient(gradient, inputs[s], prints[s], p);
      gradient = input_gradient(gradient, inputs[s], prints[s]);
    }
  }
  const bool left_out =
      std::ranges::any_of(left_out_, [&](const coordinator::StepRange& steps) { return steps.contains(step); });
  if (plan_.training_count(step) > 0 && !left_out && !is_bad_step(seed_, step))
    for (std::uint32_t s = 0; s < stages; ++s)
      if (paths.training_count(StageId(s)) > 0) add_step(weights[s], sums[s], paths.weight(StageId(s)));
  versions_.push_back(std::move(weights));
}

const Weights& Reference::weights(StageId stage, std::uint64_t version) {
  while (versions_.size() <= version) take_step();
  return versions_[version][stage.value];
}

}  // namespace isthmus::sim
