#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "base/counter_random.h"

namespace isthmus::compress {

using Values = std::vector<float>;

// Normal numbers of this name.
inline Values normals(std::uint64_t count, const std::string& name, double size = 1) {
  const CounterRandom random(3, name);
  Values out(count);
  for (std::uint64_t i = 0; i < count; ++i) out[i] = static_cast<float>(size * random.normal(i));
  return out;
}

// An honest replica's update: a share of what it is made of (of the variance) is what all of them found, the rest its
// own.
inline Values honest(const Values& common, double share, const std::string& name, double size = 1) {
  Values out = normals(common.size(), name);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<float>(size * (std::sqrt(share) * common[i] + std::sqrt(1 - share) * out[i]));
  return out;
}

}  // namespace isthmus::compress
