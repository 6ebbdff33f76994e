#include "compress/update_slices.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/counter_random.h"

namespace isthmus::compress {

namespace {

// As many slices can be dealt evenly to two, three, four or six owners.
constexpr std::uint64_t kSlices = 12;

}  // namespace

UpdateSlices::UpdateSlices(const spec::RunSpec& run, std::vector<std::uint64_t> tensors, bool last)
    : every_(run.sync.every) {
  stage_numbers_ = std::accumulate(tensors.begin(), tensors.end(), std::uint64_t{0});
  if (run.sync.mode == "sparseloco" && !last) {
    numbers_ = stage_numbers_;
    slices_.push_back({0, 0, make_sparse_update(std::move(tensors))});
    return;
  }
  const std::uint64_t tiles = (stage_numbers_ + kTile - 1) / kTile;
  const double share = run.sync.mode == "slices" && !last ? run.sync.share : 1.0;
  chosen_ =
      std::clamp<std::uint64_t>(static_cast<std::uint64_t>(std::ceil(share * static_cast<double>(tiles))), 1, tiles);
  tile_order_.resize(tiles);
  std::iota(tile_order_.begin(), tile_order_.end(), 0u);
  if (chosen_ < tiles) {
    const CounterRandom random(run.run.seed, "tiles of a sync");
    for (std::uint64_t i = tiles; i > 1; --i) std::swap(tile_order_[i - 1], tile_order_[random.below(i, i)]);
  }
  const std::uint64_t slices = std::min(chosen_, kSlices);
  for (std::uint64_t s = 0; s < slices; ++s) {
    const std::uint64_t first = chosen_ * s / slices, end = chosen_ * (s + 1) / slices;
    slices_.push_back({first, end - first, make_dense_update((end - first) * kTile)});
    numbers_ += (end - first) * kTile;
  }
}

std::vector<UpdateSlices::Stretch> UpdateSlices::stretches(std::uint32_t slice, std::uint64_t version) const {
  if (chosen_ == 0) return {{0, stage_numbers_}};
  const Slice& s = slices_[slice];
  // The last sync may come early.
  const std::uint64_t round = (version + every_ - 1) / every_, tiles = tile_order_.size();
  const std::uint64_t begins = chosen_ == tiles ? 0 : round * chosen_;
  std::vector<Stretch> stretches;
  for (std::uint64_t i = s.first_tile; i < s.first_tile + s.tiles; ++i) {
    const std::uint64_t first = tile_order_[(begins + i) % tiles] * kTile;
    if (!stretches.empty() && stretches.back().first + stretches.back().size == first)
      stretches.back().size += kTile;
    else
      stretches.push_back({first, kTile});
  }
  return stretches;
}

}  // namespace isthmus::compress
