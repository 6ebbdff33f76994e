#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/ids.h"
#include "compress/encoded_tensor.h"
#include "protocol/message.h"
#include "protocol/plan.h"
#include "protocol/sample.h"
#include "scheduler/coordinator/decisions.h"

namespace isthmus::sim {

// A stand-in for the arithmetic of a model: every activation, gradient and weight is a 64-bit number that depends on
// everything the real one would depend on. A microbatch that is lost, counted twice, computed with other weights or
// taken for another shows in the weights at once, and for ever.
std::uint64_t mix(std::uint64_t a, std::uint64_t b);

compress::EncodedTensor encode(std::uint64_t number, SharedBytes tokens = nullptr);
// 0 if it is not a number of ours.
std::uint64_t decode(const compress::EncodedTensor& tensor);

using Weights = std::vector<std::uint64_t>;  // one number per parameter

SharedBytes to_bytes(const Weights& numbers);
// What is left over of a number that is not whole is passed over.
Weights from_bytes(ByteView bytes);

Weights initial_weights(std::uint64_t seed, StageId stage, std::uint64_t parameters);
std::uint64_t fingerprint(const Weights& weights);

// What a head reads, and so what its microbatch begins with: another sample's shows in the weights.
std::uint64_t head_input(std::uint64_t seed, const protocol::Sample& sample);
protocol::TokenIds token_ids(std::uint64_t seed, const protocol::Sample& sample);
// … of what it was given; 0 if that is nothing of ours.
std::uint64_t decode_tokens(const compress::EncodedTensor& tensor);
std::uint64_t forward(std::uint64_t input, std::uint64_t weights);
std::uint64_t loss_gradient(std::uint64_t input, std::uint64_t weights);
std::uint64_t input_gradient(std::uint64_t gradient, std::uint64_t input, std::uint64_t weights);
// One number per parameter; sums wrap.
std::uint64_t weight_gradient(std::uint64_t gradient, std::uint64_t input, std::uint64_t weights,
                              std::uint64_t parameter);
// `scale`: what the sum counts for.
void add_step(Weights& weights, const Weights& sum, double scale);

// Some steps have a gradient that is not finite; every stage has to skip them.
bool is_bad_step(std::uint64_t seed, StepId step);

// What one process that never fails would hold: the weights of every stage after every step.
class Reference {
 public:
  Reference(const protocol::Plan& plan, std::uint64_t seed);
  const Weights& weights(StageId stage, std::uint64_t version);
  // The step was, in the end, taken without these stages.
  void taken(StepId step, const std::vector<StageId>& absent);
  // These steps change nothing.
  void leave_out(const coordinator::StepRange& steps);

 private:
  void take_step();
  const protocol::Plan plan_;
  const std::uint64_t seed_;
  std::vector<std::vector<Weights>> versions_;  // [version][stage]
  std::map<StepId, std::vector<StageId>> absent_;
  std::vector<coordinator::StepRange> left_out_;
};

}  // namespace isthmus::sim
