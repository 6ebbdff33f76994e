#include "scheduler/paths/path_coverage.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace isthmus::paths {

bool may_visit(const PathProblem& problem, const StageSet& stages) {
  const auto count = static_cast<std::uint32_t>(problem.stages.size());
  if (stages.size() != problem.visits || stages.front() != 0) return false;
  if (problem.end == PathEnd::kLastStage && stages.back() + 1 != count) return false;
  for (std::size_t i = 1; i <= stages.size(); ++i) {
    const std::uint32_t next = i < stages.size() ? stages[i] : count;
    if (next <= stages[i - 1] || next - stages[i - 1] - 1 > problem.skips_in_a_row) return false;
  }
  return true;
}

StageSet cheapest_stages(const PathProblem& problem, const std::vector<double>& cost) {
  const auto count = static_cast<std::uint32_t>(problem.stages.size());
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  // rest[i][s]: cost of the visits after the i-th, which is at stage s; next[i][s]: where to go from there.
  std::vector<std::vector<double>> rest(problem.visits, std::vector<double>(count, kInfinite));
  std::vector<std::vector<std::uint32_t>> next(problem.visits, std::vector<std::uint32_t>(count));
  for (std::uint32_t s = 0; s < count; ++s)
    if (problem.end == PathEnd::kLastStage ? s + 1 == count : count - s - 1 <= problem.skips_in_a_row)
      rest.back()[s] = 0;
  for (std::uint32_t i = problem.visits - 1; i-- > 0;)
    for (std::uint32_t s = 0; s < count; ++s)
      for (std::uint32_t to = s + 1; to < count && to - s - 1 <= problem.skips_in_a_row; ++to)
        if (const double through = cost[to] + rest[i + 1][to]; through < rest[i][s]) {
          rest[i][s] = through;
          next[i][s] = to;
        }
  StageSet stages = {0};
  for (std::uint32_t i = 0; i + 1 < problem.visits; ++i) stages.push_back(next[i][stages.back()]);
  return stages;
}

std::vector<std::uint32_t> equal_coverage(const PathProblem& problem, const std::vector<std::uint32_t>& coverage) {
  std::vector<std::uint32_t> order(problem.end_of_skippable() > 1 ? problem.end_of_skippable() - 1 : 0);
  std::iota(order.begin(), order.end(), 1);
  std::ranges::stable_sort(order, std::ranges::greater(), [&](std::uint32_t s) { return coverage[s]; });
  std::uint32_t visits = 0;
  for (const std::uint32_t s : order) visits += coverage[s];
  std::vector<std::uint32_t> target = coverage;
  for (std::size_t i = 0; i < order.size(); ++i)
    target[order[i]] = visits / static_cast<std::uint32_t>(order.size()) + (i < visits % order.size() ? 1 : 0);
  return target;
}

std::uint32_t uneven_visits(const PathProblem& problem, const std::vector<std::uint32_t>& coverage) {
  const auto target = equal_coverage(problem, coverage);
  std::uint32_t visits = 0;
  for (std::size_t s = 0; s < target.size(); ++s) visits += coverage[s] > target[s] ? coverage[s] - target[s] : 0;
  return visits;
}

Result<std::vector<StageSet>> cover_equally(const PathProblem& problem) {
  std::vector<StageSet> sets(problem.origins().size());
  std::vector<std::uint32_t> coverage(problem.stages.size());
  constexpr int kRounds = 8;
  for (int round = 0; round < kRounds; ++round) {
    for (auto& set : sets) {
      for (const std::uint32_t s : set) --coverage[s];
      // The marginal cost of the square: what was visited least is cheapest.
      set = cheapest_stages(problem, std::vector<double>(coverage.begin(), coverage.end()));
      for (const std::uint32_t s : set) ++coverage[s];
    }
    if (uneven_visits(problem, coverage) == 0) return sets;
  }
  const auto most = std::max_element(coverage.begin() + 1, coverage.begin() + problem.end_of_skippable());
  const auto least = std::min_element(coverage.begin() + 1, coverage.begin() + problem.end_of_skippable());
  return fail(
      "equal coverage: with {} visits and at most {} skips in a row stage {} is visited {} times and stage {} {} "
      "times, expected equally often",
      problem.visits, problem.skips_in_a_row, most - coverage.begin(), *most, least - coverage.begin(), *least);
}

}  // namespace isthmus::paths
