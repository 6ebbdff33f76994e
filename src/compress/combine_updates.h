#pragma once

#include <span>
#include <string>
#include <vector>

#include "compress/update_codec.h"

namespace isthmus::compress {

enum class CombineRule {
  kMean,    // Σ wᵢ fᵢ uᵢ / Σ wᵢ
  kMedian,  // of each coordinate, whatever the weights
  kTrimmed,  // the mean of each coordinate without the ⌊R/4⌋ largest and smallest of R, but at least one where R ≥ 3
};

struct Update {
  double weight = 0;  // microbatches the replica processed; 0 while it warms up. REQUIRES: finite, not negative
  ByteView payload;
};

// What was found about one of the updates.
struct UpdateFinding {
  double norm = 0;
  double agreement = 0;  // cosine with the weighted mean of the others, after clipping; 0 where there are none
  double factor = 0;     // what it was multiplied with (at weight 0, would be): 0 excluded, below 1 clipped
  std::string offence;   // for people; empty: none
};

// What the replicas of a stage agree their weights have moved by, with the findings in the order given. Everything
// follows from the payloads, the weights and their order: replicas that have the same end with the same bits. Memory: a
// few tiles of each update.
//
// Counted are updates with a weight whose payload passes check(). Each is clipped to the median of their norms (Sun et
// al., arXiv 1911.07963; of an even number the lower of the two, so of two updates the smaller: a step too small is
// made up for later).
//   - A norm above kLoudNorm medians is an offence, though clipping has dealt with it. From three counted on.
//   - An update is excluded that has nothing in common with the others: whose agreement is, beyond chance, less than a
//   quarter of
//     the median of all agreements (the lower one: more than half have to agree). Chance: had each of its numbers a
//     random sign, its agreement would have at most some deviation; kChance of those are granted. From three counted
//     on.
// Median and trimmed mean take coordinates that a sparse update does not hold as 0, so what fewer than half of the
// updates hold has median 0. Where there is nothing to combine, out is 0. REQUIRES: out.size() == codec.numbers().
inline constexpr double kLoudNorm = 20;
inline constexpr double kChance = 3;
std::vector<UpdateFinding> combine_updates(const UpdateCodec& codec, std::span<const Update> updates, CombineRule rule,
                                           std::span<float> out);

}  // namespace isthmus::compress
