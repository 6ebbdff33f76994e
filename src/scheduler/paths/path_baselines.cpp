#include "scheduler/paths/path_baselines.h"

#include <algorithm>
#include <numeric>

#include "base/counter_random.h"
#include "scheduler/paths/min_cost_assignment.h"
#include "scheduler/paths/path_checks.h"
#include "scheduler/paths/path_coverage.h"
#include "scheduler/paths/path_heuristic.h"

namespace isthmus::paths {

PathProblem without_skips(const PathProblem& problem) {
  PathProblem full = problem;
  full.visits = static_cast<std::uint32_t>(problem.stages.size());
  full.skips_in_a_row = 0;
  return full;
}

Result<FullPaths> full_pipelines(const PathProblem& problem) {
  if (auto sound = check_problem(problem); !sound) return tl::unexpected(sound.error());
  FullPaths full{without_skips(problem), {}};
  const auto round_trip = [&](std::uint32_t a, std::uint32_t b) {
    return to_seconds(problem.between(a, b) + problem.between(b, a));
  };
  // From the narrowest stage outwards, so that wider ones give the nodes that lie best.
  const auto narrowest = static_cast<std::uint32_t>(
      std::ranges::min_element(problem.stages, {}, &std::vector<std::uint32_t>::size) - problem.stages.begin());
  std::vector<std::vector<std::uint32_t>> pipelines;
  for (const std::uint32_t node : problem.stages[narrowest]) {
    pipelines.emplace_back(problem.stages.size());
    pipelines.back()[narrowest] = node;
  }
  const auto match = [&](std::uint32_t stage, std::uint32_t neighbour) {
    std::vector<std::vector<double>> cost;
    for (const auto& pipeline : pipelines) {
      auto& row = cost.emplace_back();
      for (const std::uint32_t node : problem.stages[stage]) {
        row.push_back(round_trip(node, pipeline[neighbour]));
        // The last node sends to the origin, too.
        if (stage == 0 && problem.end == PathEnd::kOrigin && problem.stages.size() > 2)
          row.back() += round_trip(node, pipeline.back());
      }
    }
    const auto column = min_cost_assignment(cost);
    for (std::size_t i = 0; i < pipelines.size(); ++i) pipelines[i][stage] = problem.stages[stage][column[i]];
  };
  for (std::uint32_t stage = narrowest + 1; stage < problem.stages.size(); ++stage) match(stage, stage - 1);
  for (std::uint32_t stage = narrowest; stage-- > 0;) match(stage, stage + 1);

  const std::uint32_t all = std::accumulate(problem.microbatches.begin(), problem.microbatches.end(), 0u);
  std::ranges::fill(full.problem.microbatches, 0);
  for (std::uint32_t i = 0; i < all; ++i) {
    const auto& origins = problem.stages[0];
    ++full.problem.microbatches[static_cast<std::size_t>(
        std::ranges::find(origins, pipelines[i % pipelines.size()][0]) - origins.begin())];
  }
  for (const std::uint32_t origin : full.problem.origins())
    full.choice.nodes.push_back(
        *std::ranges::find(pipelines, origin, [](const auto& pipeline) { return pipeline[0]; }));
  full.choice.rank.resize(all);
  std::iota(full.choice.rank.begin(), full.choice.rank.end(), 0);
  return full;
}

Result<PathChoice> blind_paths(const PathProblem& problem, std::uint64_t seed) {
  if (auto sound = check_problem(problem); !sound) return tl::unexpected(sound.error());
  const auto sets = cover_equally(problem);
  if (!sets) return tl::unexpected(sets.error());
  const CounterRandom random(seed, "blind paths");
  std::uint64_t drawn = 0;
  PathChoice choice;
  for (const std::uint32_t origin : problem.origins()) choice.nodes.push_back({origin});
  choice.rank.resize(choice.nodes.size());
  std::iota(choice.rank.begin(), choice.rank.end(), 0);
  for (std::uint32_t stage = 1; stage < problem.stages.size(); ++stage) {
    const auto visits = static_cast<std::uint32_t>(
        std::ranges::count_if(*sets, [&](const StageSet& set) { return std::ranges::binary_search(set, stage); }));
    auto dealt = deal_visits(problem, stage, visits);
    for (std::size_t i = dealt.size(); i > 1; --i) std::swap(dealt[i - 1], dealt[random.below(i, drawn++)]);
    for (std::size_t m = 0; m < choice.nodes.size(); ++m)
      if (std::ranges::binary_search((*sets)[m], stage)) {
        choice.nodes[m].push_back(dealt.back());
        dealt.pop_back();
      }
  }
  return choice;
}

}  // namespace isthmus::paths
