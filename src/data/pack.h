#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/output_file.h"
#include "base/result.h"

namespace isthmus::data {

struct PackOptions {
  std::vector<std::string> files;  // joined in this order
  std::string train;
  std::string validation;
  double validation_share = 0.02;  // of the text, from its end; in (0, 1)
  std::string vocabulary;          // sentencepiece model; empty: the ids are the bytes
  Existing existing = Existing::kRefused;
  // Told now and then how many of how many bytes are done.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;
};

struct PackedShard {
  std::uint64_t bytes = 0;  // of text
  std::uint64_t tokens = 0;
  double bytes_per_token() const { return static_cast<double>(bytes) / static_cast<double>(tokens); }
};

struct Packed {
  std::uint32_t vocabulary = 256;  // every id is below it
  PackedShard train;
  PackedShard validation;  // nats per byte = nats per token / its bytes per token
};

// Text files to two shards, of bytes or of the ids of a vocabulary, which needs UTF-8. Never overwrites an input.
// Memory does not depend on the size of the text.
Result<Packed> pack(const PackOptions& options);

}  // namespace isthmus::data
