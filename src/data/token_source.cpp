#include "data/token_source.h"

#include <bit>
#include <utility>

#include "base/token_width.h"
#include "data/shard_name.h"

namespace isthmus::data {

Result<TokenSource> TokenSource::open(const spec::RunConfig& run) {
  for (const auto& [path, shard] :
       {std::pair(run.host.data.train, run.data.train), std::pair(run.host.data.validation, run.data.validation)}) {
    if (path.empty())
      return fail("this machine has no path for the shard with the digest {}: say it as data.train and data.validation",
                  shard.digest);
    if (auto same = check_shard_name(path, shard); !same) return tl::unexpected(same.error());
  }
  auto train = TokenShard::open(run.host.data.train, run.model.vocabulary);
  if (!train) return tl::unexpected(train.error());
  auto validation = TokenShard::open(run.host.data.validation, run.model.vocabulary);
  if (!validation) return tl::unexpected(validation.error());
  for (const auto& [path, shard] :
       {std::pair(run.host.data.train, &*train), std::pair(run.host.data.validation, &*validation)})
    if (shard->size() < 2 * (std::uint64_t{run.model.context} + 1))
      return fail("{} holds {} tokens, expected at least two windows of model.context + 1 = {}", path, shard->size(),
                  run.model.context + 1);
  return TokenSource(run, std::move(*train), std::move(*validation));
}

TokenSource::TokenSource(const spec::RunConfig& run, TokenShard train, TokenShard validation)
    : train_(std::move(train)),
      validation_(std::move(validation)),
      random_(run.run.seed, "data order"),
      context_(run.model.context),
      sequences_(run.train.sequences_per_microbatch),
      microbatches_(run.train.microbatches_per_step),
      evaluation_windows_(std::uint64_t{run.train.evaluation_microbatches} * run.train.sequences_per_microbatch),
      width_(token_width(run.model.vocabulary)) {}

void TokenSource::append_window(Bytes& out, const TokenShard& shard, std::uint64_t first) const {
  for (std::uint64_t i = 0; i <= context_; ++i) {
    const std::uint32_t id = shard[first + i];
    for (std::uint32_t b = 0; b < width_; ++b) out.push_back(static_cast<std::uint8_t>(id >> (8 * b)));
  }
}

std::uint64_t TokenSource::permuted(std::uint64_t index, std::uint64_t count, std::uint64_t epoch) const {
  const int half = (std::bit_width(count - 1) + 1) / 2;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  do {
    std::uint64_t left = index >> half, right = index & mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::uint64_t mixed = random_.words(((epoch * 4 + round) << 34) ^ right)[0];
      left = std::exchange(right, left ^ (mixed & mask));
    }
    index = (left << half) | right;
  } while (index >= count);
  return index;
}

Bytes TokenSource::training(StepId step, MicrobatchId microbatch) const {
  Bytes out;
  out.reserve(sequences_ * (context_ + 1) * width_);
  // A window is a stretch of `context` tokens and the label behind it; each epoch begins at another offset.
  const std::uint64_t windows = (train_.size() - 1) / context_ - 1;
  for (std::uint64_t s = 0; s < sequences_; ++s) {
    const std::uint64_t n = ((step.value - 1) * microbatches_ + microbatch.value) * sequences_ + s;
    const std::uint64_t epoch = n / windows;
    const std::uint64_t offset = random_.below(context_, ~epoch);
    append_window(out, train_, offset + permuted(n % windows, windows, epoch) * context_);
  }
  return out;
}

Bytes TokenSource::evaluation(MicrobatchId microbatch) const {
  Bytes out;
  out.reserve(sequences_ * (context_ + 1) * width_);
  const std::uint64_t last_start = validation_.size() - context_ - 1;
  for (std::uint64_t s = 0; s < sequences_; ++s) {
    const std::uint64_t n = microbatch.value * sequences_ + s;
    append_window(out, validation_, n * last_start / evaluation_windows_);
  }
  return out;
}

}  // namespace isthmus::data
