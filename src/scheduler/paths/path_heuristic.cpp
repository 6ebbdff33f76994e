#include "scheduler/paths/path_heuristic.h"

#include <algorithm>
#include <numeric>

#include "scheduler/paths/min_cost_assignment.h"
#include "scheduler/paths/path_checks.h"
#include "scheduler/paths/path_coverage.h"

namespace isthmus::paths {

std::vector<std::uint32_t> deal_visits(const PathProblem& problem, std::uint32_t stage, std::uint32_t visits) {
  const auto& replicas = problem.stages[stage];
  std::vector<std::uint32_t> dealt, count(replicas.size());
  for (std::uint32_t i = 0; i < visits; ++i) {
    const auto behind = [&](std::size_t r) {
      const auto& node = problem.nodes[replicas[r]];
      return (node.forward + node.backward) * (count[r] + 1);
    };
    std::size_t next = 0;
    for (std::size_t r = 1; r < replicas.size(); ++r)
      if (std::pair(behind(r), count[r]) < std::pair(behind(next), count[next])) next = r;
    ++count[next];
    dealt.push_back(replicas[next]);
  }
  return dealt;
}

Result<PathChoice> match_paths(const PathProblem& problem) {
  if (auto sound = check_problem(problem); !sound) return tl::unexpected(sound.error());
  const auto sets = cover_equally(problem);
  if (!sets) return tl::unexpected(sets.error());
  const auto origins = problem.origins();
  PathChoice choice;
  for (const std::uint32_t origin : origins) choice.nodes.push_back({origin});
  choice.rank.resize(origins.size());
  std::iota(choice.rank.begin(), choice.rank.end(), 0);
  const auto round_trip = [&](std::uint32_t a, std::uint32_t b) {
    return to_seconds(problem.between(a, b) + problem.between(b, a));
  };
  for (std::uint32_t stage = 1; stage < problem.stages.size(); ++stage) {
    std::vector<std::uint32_t> visitors;
    for (std::uint32_t m = 0; m < origins.size(); ++m)
      if (std::ranges::binary_search((*sets)[m], stage)) visitors.push_back(m);
    const auto dealt = deal_visits(problem, stage, static_cast<std::uint32_t>(visitors.size()));
    const std::size_t together = problem.stages[stage].size();
    for (std::size_t begin = 0; begin < visitors.size(); begin += together) {
      const std::size_t end = std::min(begin + together, visitors.size());
      std::vector<std::vector<double>> cost;
      for (std::size_t i = begin; i < end; ++i) {
        const std::uint32_t m = visitors[i];
        const bool returns = problem.end == PathEnd::kOrigin && (*sets)[m].back() == stage;
        auto& row = cost.emplace_back();
        for (std::size_t j = begin; j < end; ++j)
          row.push_back(round_trip(choice.nodes[m].back(), dealt[j]) +
                        (returns ? round_trip(dealt[j], origins[m]) : 0));
      }
      const auto column = min_cost_assignment(cost);
      for (std::size_t i = begin; i < end; ++i) choice.nodes[visitors[i]].push_back(dealt[begin + column[i - begin]]);
    }
  }
  return choice;
}

std::uint64_t evaluations_of(const PathProblem& problem, std::uint64_t simulated_operations) {
  return simulated_operations / std::max<std::uint64_t>(1, problem.origins().size() * (2 * problem.visits + 1));
}

Result<PathChoice> plan_paths(const PathProblem& problem, const PathImprovement& improvement) {
  auto start = match_paths(problem);
  if (!start) return start;
  return improve_paths(problem, std::move(*start), improvement);
}

}  // namespace isthmus::paths
