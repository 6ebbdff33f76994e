#include "scheduler/planner/split_layers.h"

#include <algorithm>
#include <limits>

namespace isthmus::planner {

std::optional<std::vector<std::uint32_t>> split_layers(
    std::uint32_t layers, const std::vector<double>& speeds,
    const std::function<double(std::uint32_t, std::uint32_t)>& cost,
    const std::function<bool(std::uint32_t, std::uint32_t, std::uint32_t)>& fits) {
  constexpr double kImpossible = std::numeric_limits<double>::infinity();
  const auto stages = static_cast<std::uint32_t>(speeds.size());
  // best[e]: the slowest of the stages up to s, if they hold layers 0 … e-1; begin[s][e]: where stage s begins then.
  std::vector<double> best(layers + 1, kImpossible);
  best[0] = 0;
  std::vector<std::vector<std::uint32_t>> begin(stages, std::vector<std::uint32_t>(layers + 1));
  for (std::uint32_t s = 0; s < stages; ++s) {
    std::vector<double> next(layers + 1, kImpossible);
    // Every stage has a layer, the later ones too; the last stage ends with the last layer.
    const std::uint32_t least = s + 1 == stages ? layers : s + 1;
    for (std::uint32_t end = least; end + (stages - s - 1) <= layers; ++end)
      for (std::uint32_t first = end; first-- > s;) {
        const double own = cost(first, end) / speeds[s];
        // Longer ones only take longer.
        if (own >= next[end]) break;
        if (!fits(s, first, end)) continue;
        if (const double slowest = std::max(own, best[first]); slowest < next[end]) {
          next[end] = slowest;
          begin[s][end] = first;
        }
      }
    best = std::move(next);
  }
  if (best[layers] == kImpossible) return std::nullopt;
  std::vector<std::uint32_t> ends(stages);
  std::uint32_t end = layers;
  for (std::uint32_t s = stages; s-- > 0; end = begin[s][end]) ends[s] = end;
  return ends;
}

}  // namespace isthmus::planner
