#pragma once

#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "base/counter_random.h"
#include "base/ids.h"
#include "base/result.h"
#include "data/token_shard.h"
#include "spec/run_config.h"

namespace isthmus::data {

// The token ids of every microbatch, as a pure function of the run's seed: whoever has the shards can draw any
// microbatch at any time. Results: sequences × (context + 1) ids, little-endian, 1, 2 or 4 bytes each by vocabulary;
// the last id of a sequence is only a label. Immutable; any thread.
class TokenSource {
 public:
  // Opens and checks both shards: that they are the run's, where it names them, and that a model can use them.
  static Result<TokenSource> open(const spec::RunConfig& run);

  // Training windows do not overlap and are visited once per epoch, in a new order and with a new offset each epoch.
  Bytes training(StepId step, MicrobatchId microbatch) const;
  // Evenly spaced windows of the held-out shard, the same in every evaluation and every run.
  Bytes evaluation(MicrobatchId microbatch) const;

 private:
  TokenSource(const spec::RunConfig& run, TokenShard train, TokenShard validation);
  void append_window(Bytes& out, const TokenShard& shard, std::uint64_t first) const;
  // Position of item `index` of `count` in a random order of this epoch: four Feistel rounds, walked until the result
  // is below `count`. No table.
  std::uint64_t permuted(std::uint64_t index, std::uint64_t count, std::uint64_t epoch) const;

  TokenShard train_;
  TokenShard validation_;
  CounterRandom random_;
  std::uint64_t context_;
  std::uint64_t sequences_;
  std::uint64_t microbatches_;
  std::uint64_t evaluation_windows_;
  std::uint32_t width_;
};

}  // namespace isthmus::data
