#pragma once

#include <compare>
#include <cstdint>
#include <optional>

#include "base/ids.h"
#include "base/result.h"
#include "compress/encoded_tensor.h"

namespace isthmus::store {

// What a worker sent to its neighbours, kept for the day on which a neighbour stage loses all its replicas. Bounded in
// size: the oldest steps go first. Owned by whoever runs the worker's jobs.
class Journal {
 public:
  struct Key {
    StepId step;
    std::uint32_t attempt = 0;
    MicrobatchId microbatch;
    bool gradient = false;  // sent back; otherwise sent forward
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  virtual ~Journal() = default;

  // An entry that is there already is not written again, a new one is on its way to what lasts. On error nothing was
  // added.
  virtual Status append(const Key& key, const compress::EncodedTensor& tensor) = 0;
  // Waits until everything appended lasts.
  virtual Status sync() = 0;
  // Nothing if there is no such entry, or its bytes are not what they were.
  virtual std::optional<compress::EncodedTensor> find(const Key& key) const = 0;
  // Removes the entries of all steps up to `version`.
  virtual void trim(std::uint64_t version) = 0;
};

}  // namespace isthmus::store
