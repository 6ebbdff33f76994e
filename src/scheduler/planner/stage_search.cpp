#include "scheduler/planner/stage_search.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>

namespace isthmus::planner {

std::vector<std::uint32_t> stage_counts(std::uint32_t most, const std::function<bool(std::uint32_t)>& allowed) {
  std::vector<std::uint32_t> counts;
  for (std::uint32_t stages = 1, next = 1; stages <= most; ++stages) {
    if (stages < next || !allowed(stages)) continue;
    counts.push_back(stages);
    next = stages + std::max(1u, stages / 16);
  }
  return counts;
}

StageSearch::StageSearch(std::vector<std::uint32_t> counts, double cost, double budget)
    : cost_(cost),
      left_(budget),
      counts_(std::move(counts)),
      all_(cost * std::accumulate(counts_.begin(), counts_.end(), 0.0) <= budget) {}

std::optional<std::uint32_t> StageSearch::next() const {
  const auto best = std::ranges::min_element(scores_, {}, [](const auto& entry) { return entry.second; });
  const bool found = best != scores_.end() && best->second < std::numeric_limits<double>::infinity();
  // From power to power; a number that is not in the list is followed by one that is.
  std::uint32_t power = 1;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    if (!all_ && counts_[i] < power) continue;
    power = 2 * std::bit_floor(counts_[i]);
    if (!scores_.contains(i) && (!found || affordable(counts_[i]))) return counts_[i];
  }
  if (!found) {
    // What no few machines can hold, many may.
    for (std::size_t i = counts_.size(); i-- > 0;)
      if (!scores_.contains(i)) return counts_[i];
    return std::nullopt;
  }
  const std::size_t before = best == scores_.begin() ? best->first : std::prev(best)->first;
  const std::size_t after = std::next(best) == scores_.end() ? best->first : std::next(best)->first;
  for (const std::size_t middle : {(before + best->first) / 2, (best->first + after) / 2})
    if (!scores_.contains(middle) && affordable(counts_[middle])) return counts_[middle];
  return std::nullopt;
}

void StageSearch::tried(std::uint32_t stages, double score) {
  left_ -= cost_ * stages;
  scores_[static_cast<std::size_t>(std::ranges::lower_bound(counts_, stages) - counts_.begin())] = score;
}

}  // namespace isthmus::planner
