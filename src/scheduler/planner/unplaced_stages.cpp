#include "scheduler/planner/unplaced_stages.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace isthmus::planner {

std::vector<config::KeyProblem> unplaced_stages(const spec::RunConfig& run, const PlacementProblem& problem,
                                                const std::vector<std::uint32_t>& ends) {
  const auto& machines = problem.fleet->machines;
  // Who holds the larger stage holds the smaller one, so the largest stages take the largest machines.
  std::vector<double> memory;
  for (const auto& machine : machines) memory.push_back(machine.memory_bytes);
  std::ranges::sort(memory, std::greater());
  std::vector<std::size_t> by_need(problem.stages.size());
  std::iota(by_need.begin(), by_need.end(), 0u);
  std::ranges::stable_sort(by_need, std::greater(), [&](std::size_t s) { return problem.stages[s].memory_bytes; });
  std::vector<std::size_t> unplaced;
  std::vector<std::size_t> wanted(by_need.size());  // machines, for this stage and those that need more
  for (std::size_t i = 0; i < by_need.size(); ++i) {
    wanted[by_need[i]] = i + 1;
    if (i >= memory.size() || problem.stages[by_need[i]].memory_bytes > memory[i]) unplaced.push_back(by_need[i]);
  }
  std::ranges::sort(unplaced);
  const auto& largest = *std::ranges::max_element(machines, {}, &FleetMachine::memory_bytes);
  const bool given = run.pipeline.layout != "auto";
  std::vector<config::KeyProblem> problems;
  for (const std::size_t s : unplaced) {
    const double bytes = problem.stages[s].memory_bytes;
    const auto enough = std::ranges::count_if(memory, [&](double has) { return has >= bytes; });
    const std::uint32_t first = s == 0 ? 0 : ends[s - 1];
    const std::string what =
        given ? fmt::format("stage {} (layers {}:{}) needs {:.3g} GB", s, first, ends[s], bytes * 1e-9)
              : fmt::format("split into {}, stage {} (layers {}:{}) needs {:.3g} GB", ends.size(), s, first, ends[s],
                            bytes * 1e-9);
    const std::string path = given                     ? fmt::format("pipeline.stage[{}].layers", s)
                             : run.pipeline.stages > 0 ? "pipeline.stages"
                                                       : "fleet.machine";
    if (enough == 0)
      problems.push_back({path, fmt::format("{}, which no machine has", what),
                          fmt::format("more than the {:.3g} GB of {}, the largest, or {}", largest.memory_bytes * 1e-9,
                                      largest.name, kLessKept)});
    else
      problems.push_back(
          {path, fmt::format("{}, which {} of {} machines ha{}", what, enough, memory.size(), enough == 1 ? "s" : "ve"),
           fmt::format("{} of them, one for each stage that needs as much or more, or {}", wanted[s], kLessKept)});
  }
  return problems;
}

}  // namespace isthmus::planner
