#include "app/path_bench.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>
#include <vector>

#include "app/clock.h"
#include "app/line_file.h"
#include "app/path_chart.h"
#include "config/load_paths.h"
#include "scheduler/make_path_problem.h"
#include "scheduler/path_baselines.h"
#include "scheduler/path_checks.h"
#include "scheduler/path_heuristic.h"
#include "scheduler/path_search.h"
#include "scheduler/path_simulation.h"

namespace isthmus {

namespace {

// Operations of the event simulation for one improvement: about a second and a half.
constexpr std::uint64_t kSimulatedOperations = 30'000'000;

struct Row {
  std::string name;
  PathProblem problem;  // what the plan was made for
  PathPlan plan;
  double planning_seconds = 0;
  double step_seconds() const { return to_seconds(plan.makespan); }
};

PathImprovement improvement_of(const PathProblem& problem, std::uint64_t seed) { return {seed, evaluations_of(problem, kSimulatedOperations)}; }

// The planners by name, the first one the reference. All on the same nodes and links.
Result<std::vector<Row>> plan_all(const PathProblem& problem, std::uint64_t seed) {
  std::vector<Row> rows;
  // Plays what was planned and holds every constraint against it.
  const auto add = [&](const char* name, const PathProblem& planned, const Result<PathChoice>& choice, Time began) -> Status {
    if (!choice) return tl::unexpected(choice.error());
    const double took = to_seconds(monotonic_now() - began);
    PathSimulation simulation(planned);
    simulation.run(*choice);
    rows.push_back({name, planned, simulation.plan(), took});
    if (auto sound = check_plan(planned, rows.back().plan); !sound) return fail("{}: {}", name, sound.error().message);
    return {};
  };
  Time began = monotonic_now();
  const auto full = full_pipelines(problem);
  if (!full) return tl::unexpected(full.error());
  if (auto done = add("full pipelines", full->problem, full->choice, began); !done) return tl::unexpected(done.error());
  const PathProblem unskipped = without_skips(problem);
  began = monotonic_now();
  if (auto done = add("full paths, planned", unskipped, plan_paths(unskipped, improvement_of(unskipped, seed)), began); !done) return tl::unexpected(done.error());
  began = monotonic_now();
  if (auto done = add("skipping, network-blind", problem, blind_paths(problem, seed), began); !done) return tl::unexpected(done.error());
  began = monotonic_now();
  if (auto done = add("skipping, heuristic", problem, plan_paths(problem, improvement_of(problem, seed)), began); !done) return tl::unexpected(done.error());
  if (problem.nodes.size() <= kSearchNodesMax) {
    PathSearch search;
    search.improvement = improvement_of(problem, seed);
    began = monotonic_now();
    const auto found = search_paths(problem, search).map([](const PathSearchResult& result) { return result.choice; });
    if (auto done = add("skipping, search", problem, found, began); !done) return tl::unexpected(done.error());
  }
  return rows;
}

struct Spread {
  double median = 0, worst = 0;
};
Spread spread(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  return {values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2, values.back()};
}

Status write_chart(const std::string& path, const PathsConfig& paths, const std::vector<std::uint32_t>& regions, const std::vector<Row>& rows) {
  std::vector<std::string> places;
  for (const std::uint32_t region : regions) places.push_back(paths.region[region].name);
  std::vector<ChartedPlan> plans;
  for (const auto& row : rows) plans.push_back({row.name, &row.problem, row.plan});
  return write_whole(path, path_chart(plans, places));
}

}  // namespace

int bench_paths(PathsConfig paths, const PathBenchOptions& options) {
  const auto refuse = [](const std::string& message) {
    spdlog::error("{}", message);
    return 1;
  };
  const std::uint64_t scaled = std::accumulate(paths.stages.begin(), paths.stages.end(), std::uint64_t{0}) * options.scale;
  if (scaled > kPathNodesMax) return refuse(fmt::format("--scale {} makes {} nodes, expected at most {}", options.scale, scaled, kPathNodesMax));
  for (auto& nodes : paths.stages) nodes *= options.scale;
  if (path_visits(paths) > kPathVisitsMax) return refuse(fmt::format("--scale {} makes {:.0f} visits of stages, expected at most {}", options.scale, path_visits(paths), kPathVisitsMax));

  const auto regions = draw_regions(paths, paths.seed);
  const PathProblem problem = make_path_problem(paths, regions);
  const auto rows = plan_all(problem, paths.seed);
  if (!rows) return refuse(rows.error().message);
  if (!options.out.empty())
    if (auto written = write_chart(options.out, paths, regions, *rows); !written) return refuse(written.error().message);

  const auto ratio = [](const std::vector<Row>& of, std::size_t row) { return of[row].step_seconds() / of[0].step_seconds(); };
  std::vector<std::vector<double>> ratios(rows->size());
  for (std::size_t i = 0; i < rows->size(); ++i) ratios[i].push_back(ratio(*rows, i));
  for (std::uint32_t draw = 1; draw <= paths.draws; ++draw) {
    const auto other = plan_all(make_path_problem(paths, draw_regions(paths, paths.seed + draw)), paths.seed + draw);
    if (!other) return refuse(other.error().message);
    for (std::size_t i = 0; i < rows->size(); ++i) ratios[i].push_back(ratio(*other, i));
  }

  nlohmann::ordered_json json = {{"case", paths.name}, {"nodes", problem.nodes.size()}, {"stages", problem.stages.size()}, {"visits", problem.visits},
                                 {"microbatches", problem.origins().size()}, {"draws", paths.draws + 1}};
  std::string text = fmt::format("{}: {} nodes, {} stages, {} visited, {} microbatches; {} draws of the regions\n\n{:<26}{:>9}{:>12}{:>13}{:>15}{:>14}\n", paths.name, problem.nodes.size(),
                                 problem.stages.size(), problem.visits, problem.origins().size(), paths.draws + 1, "paths", "step, s", "over full", "planning, s", "median ratio",
                                 "worst ratio");
  for (std::size_t i = 0; i < rows->size(); ++i) {
    const auto& row = (*rows)[i];
    const Spread all = spread(ratios[i]);
    json["paths"].push_back({{"paths", row.name}, {"step_seconds", row.step_seconds()}, {"ratio", ratio(*rows, i)}, {"planning_seconds", row.planning_seconds},
                             {"coverage", row.plan.coverage}, {"median_ratio", all.median}, {"worst_ratio", all.worst}});
    text += fmt::format("{:<26}{:>9.1f}{:>12.3f}{:>13.2f}{:>15.3f}{:>14.3f}\n", row.name, row.step_seconds(), ratio(*rows, i), row.planning_seconds, all.median, all.worst);
  }
  fmt::print("{}", options.json ? json.dump() + "\n" : text);
  return 0;
}

}  // namespace isthmus
