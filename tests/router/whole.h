#pragma once

#include <vector>

#include "base/bytes.h"

namespace isthmus::router {

// What pieces make, to be compared.
inline Bytes whole(const std::vector<SharedBytes>& pieces) {
  const SharedBytes all = joined(pieces);
  return {all->begin(), all->end()};
}

}  // namespace isthmus::router
