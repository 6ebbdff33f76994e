#pragma once

#include <cstdint>
#include <string>

namespace isthmus {

// What a checkpoint of one stage is, as it is sent and kept: one row of bytes (store/checkpoint_archive.h).
struct CheckpointFacts {
  std::uint64_t version = 0;
  std::uint32_t timeline = 0;  // rollbacks of the run before it
  std::uint64_t bytes = 0;
  std::string digest;  // that names the whole
  friend bool operator==(const CheckpointFacts&, const CheckpointFacts&) = default;
};

}  // namespace isthmus
