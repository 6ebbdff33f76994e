#pragma once

#include <numeric>
#include <vector>

#include "base/counter_random.h"
#include "scheduler/paths/path_problem.h"

namespace isthmus::paths {

// Nodes and links with times drawn from the seed: forward 1 to 3 s, backward 1.5 of it, transfers of 0.1 to 2 s.
inline PathProblem drawn_problem(std::uint64_t seed, const std::vector<std::uint32_t>& stages,
                                 std::uint32_t microbatches, std::uint32_t visits, std::uint32_t skips_in_a_row,
                                 std::uint32_t memory, PathEnd end = PathEnd::kOrigin) {
  const CounterRandom random(seed, "path case");
  std::uint64_t drawn = 0;
  const auto between = [&](double low, double high) {
    return seconds(low + (high - low) * static_cast<double>(random.below(1000, drawn++)) / 1000);
  };
  PathProblem problem;
  for (const std::uint32_t count : stages) {
    problem.stages.emplace_back(count);
    std::iota(problem.stages.back().begin(), problem.stages.back().end(),
              static_cast<std::uint32_t>(problem.nodes.size()));
    for (std::uint32_t i = 0; i < count; ++i) {
      const Duration forward = between(1, 3);
      problem.nodes.push_back({forward, forward * 3 / 2, forward / 4, memory});
    }
  }
  for (std::size_t from = 0; from < problem.nodes.size(); ++from)
    for (std::size_t to = 0; to < problem.nodes.size(); ++to)
      problem.transfer.push_back(from == to ? Duration{} : between(.1, 2));
  problem.microbatches.assign(stages[0], microbatches);
  problem.visits = visits;
  problem.skips_in_a_row = skips_in_a_row;
  problem.end = end;
  return problem;
}

}  // namespace isthmus::paths
