#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "data/token_shard.h"

namespace isthmus::data {

inline Status write_byte_shard(const std::string& path, ByteView bytes) {
  const std::vector<std::uint32_t> ids(bytes.begin(), bytes.end());
  auto shard = TokenShardWriter::create(path, 256, Existing::kReplaced);
  if (!shard) return tl::unexpected(shard.error());
  return shard->append(ids).and_then([&] { return shard->finish(); });
}

}  // namespace isthmus::data
