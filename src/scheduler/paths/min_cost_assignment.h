#pragma once

#include <cstdint>
#include <vector>

namespace isthmus::paths {

// The column of each row, no column twice, with the smallest sum of costs. Hungarian method with potentials (Kuhn 1955,
// Munkres 1957), O(rows² · columns). `cost` is rows × columns; REQUIRES: rows ≤ columns, finite costs.
std::vector<std::uint32_t> min_cost_assignment(const std::vector<std::vector<double>>& cost);

}  // namespace isthmus::paths
