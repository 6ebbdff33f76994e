#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace isthmus::stage {

// A run's model from a checkpoint, to be read only: its stages in this process one after the other, with the boundary
// codec between them, so that it computes what was trained. On the CPU. One thread.
class CheckpointModel {
 public:
  virtual ~CheckpointModel() = default;

  // Logits of the token that follows on `ids`, one for each id of the vocabulary. REQUIRES: 1 to model.context ids,
  // each below model.vocabulary.
  virtual Result<std::vector<float>> next(std::span<const std::uint32_t> ids) = 0;
};

}  // namespace isthmus::stage
