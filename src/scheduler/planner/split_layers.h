#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace isthmus::planner {

// Layers 0 … layers-1 in contiguous stages so that the slowest one is as fast as possible: stage s takes
// cost(first, end) / speeds[s]. Exact, by dynamic programming over the end of each stage; of equally fast splits, the
// one whose last stages are smallest. Returns the end of each stage, or nothing if fits(s, first, end) leaves no split.
// REQUIRES: 1 ≤ speeds.size() ≤ layers; a stage with more layers costs no less.
std::optional<std::vector<std::uint32_t>> split_layers(
    std::uint32_t layers, const std::vector<double>& speeds,
    const std::function<double(std::uint32_t first, std::uint32_t end)>& cost,
    const std::function<bool(std::uint32_t stage, std::uint32_t first, std::uint32_t end)>& fits);

}  // namespace isthmus::planner
