#pragma once

#include <cstdint>
#include <string>

#include "protocol/fields.h"

namespace isthmus::protocol {

// A checkpoint of one stage as it is sent and kept: one row of bytes (store/checkpoint_archive.h).
struct CheckpointFacts {
  std::uint64_t version = 0;
  std::uint32_t timeline = 0;  // rollbacks of the run before it
  std::uint64_t bytes = 0;
  std::string digest;  // that names the whole
  friend bool operator==(const CheckpointFacts&, const CheckpointFacts&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("version", self.version);
    visit("timeline", self.timeline);
    visit("bytes", self.bytes);
    visit("digest", self.digest, Most::kDigest);
  }
};

}  // namespace isthmus::protocol
