#include "data/ngram_baseline.h"

#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "data/token_shard.h"

namespace isthmus::data {

namespace {

Result<TokenShard> open_bytes(const std::string& path) {
  auto shard = TokenShard::open(path, std::nullopt);
  if (shard && shard->bytes_per_id() != 1)
    return fail(
        "{} holds the ids of a vocabulary, {} bytes each, expected a byte shard: isthmus data pack without "
        "--vocabulary makes one of the same text",
        path, shard->bytes_per_id());
  return shard;
}

}  // namespace

Result<double> trigram_loss(const std::string& train, const std::string& validation) {
  const auto text = open_bytes(train);
  if (!text) return tl::unexpected(text.error());
  const auto held_out = open_bytes(validation);
  if (!held_out) return tl::unexpected(held_out.error());
  if (held_out->size() < 3) return fail("{} is too short to score: {} bytes", validation, held_out->size());
  std::vector<std::uint32_t> three(1u << 24, 0), two(1u << 16, 0);
  for (std::uint64_t i = 2; i < text->size(); ++i) {
    const std::uint32_t context = ((*text)[i - 2] << 8) | (*text)[i - 1];
    ++two[context];
    ++three[(context << 8) | (*text)[i]];
  }
  double sum = 0;
  for (std::uint64_t i = 2; i < held_out->size(); ++i) {
    const std::uint32_t context = ((*held_out)[i - 2] << 8) | (*held_out)[i - 1];
    const std::uint32_t seen = three[(context << 8) | (*held_out)[i]];
    sum -= std::log((seen + 1.0) / (two[context] + 256.0));
  }
  return sum / static_cast<double>(held_out->size() - 2);
}

}  // namespace isthmus::data
