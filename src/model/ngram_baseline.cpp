#include "model/ngram_baseline.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "model/token_shard.h"

namespace isthmus {

Result<double> trigram_loss(const std::string& train, const std::string& validation) {
  const auto text = TokenShard::open(train, 256);
  if (!text) return tl::unexpected(text.error());
  const auto held_out = TokenShard::open(validation, 256);
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

}  // namespace isthmus
