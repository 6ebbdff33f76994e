#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "model/token_shard.h"

namespace isthmus {

inline Status write_byte_shard(const std::string& path, ByteView bytes) {
  const std::vector<std::uint32_t> ids(bytes.begin(), bytes.end());
  auto shard = TokenShardWriter::create(path, 256);
  if (!shard) return tl::unexpected(shard.error());
  return shard->append(ids).and_then([&] { return shard->finish(); });
}

}  // namespace isthmus
