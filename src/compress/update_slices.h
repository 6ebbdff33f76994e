#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "compress/update_codec.h"
#include "spec/run_spec.h"

namespace isthmus::compress {

// In front of every update: microbatches it is worth, uint32. One that is worth none has nothing behind it.
inline constexpr std::uint64_t kUpdateWeightBytes = 4;

// What the replicas of a stage tell each other at a sync (run.sync), and the slices in which it travels. Of the stage's
// numbers, its tensors one after the other, diloco and sparseloco take all, and slices (SPARTA) a share of the tiles,
// other ones at every sync until each had its turn. The last sync of a run takes all of them in bf16, so that the
// replicas end alike. Pure; the same on every machine.
class UpdateSlices {
 public:
  // `tensors`: numbers of each. REQUIRES: the run is resolved, sync.mode is not exact.
  UpdateSlices(const spec::RunSpec& run, std::vector<std::uint64_t> tensors, bool last);

  std::uint32_t count() const { return static_cast<std::uint32_t>(slices_.size()); }
  const UpdateCodec& codec(std::uint32_t slice) const { return *slices_[slice].codec; }
  // Of an update with a weight.
  std::uint64_t bytes(std::uint32_t slice) const { return kUpdateWeightBytes + codec(slice).bytes(); }
  // Numbers of all slices.
  std::uint64_t numbers() const { return numbers_; }
  // A replica's update is told as it is; what all of them make of it is not written as one again.
  bool sparse() const { return chosen_ == 0; }

  // Consecutive numbers of the stage that a slice holds one after the other; what is behind the stage's end is padding.
  struct Stretch {
    std::uint64_t first = 0;
    std::uint64_t size = 0;
  };
  std::vector<Stretch> stretches(std::uint32_t slice, std::uint64_t version) const;

 private:
  struct Slice {
    std::uint64_t first_tile = 0;  // of the sync's tiles
    std::uint64_t tiles = 0;
    std::shared_ptr<const UpdateCodec> codec;
  };
  const std::uint64_t every_;
  std::uint64_t numbers_ = 0;
  std::uint64_t stage_numbers_ = 0;
  std::uint64_t chosen_ = 0;               // tiles of a sync; 0: sparse
  std::vector<std::uint32_t> tile_order_;  // in which tiles have their turn
  std::vector<Slice> slices_;
};

}  // namespace isthmus::compress
