#include "lab/path_bench.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "config/load_paths.h"
#include "lab/path_chart.h"
#include "process/clock.h"
#include "scheduler/paths/make_path_problem.h"
#include "scheduler/paths/path_baselines.h"
#include "scheduler/paths/path_checks.h"
#include "scheduler/paths/path_heuristic.h"
#include "scheduler/paths/path_search.h"
#include "scheduler/paths/path_simulation.h"

namespace isthmus::lab {

namespace {

// Operations of the event simulation for one improvement: about a second and a half.
constexpr std::uint64_t kSimulatedOperations = 30'000'000;

struct PlanRow {
  std::string name;
  paths::PathProblem problem;  // what the plan was made for
  paths::PathPlan plan;
  double planning_seconds = 0;
  double step_seconds() const { return to_seconds(plan.makespan); }
};

paths::PathImprovement improvement_of(const paths::PathProblem& problem, std::uint64_t seed) {
  return {seed, paths::evaluations_of(problem, kSimulatedOperations)};
}

// The planners by name, the first one the reference. All on the same nodes and links.
Result<std::vector<PlanRow>> plan_all(const paths::PathProblem& problem, std::uint64_t seed) {
  std::vector<PlanRow> rows;
  // Plays what was planned and holds every constraint against it.
  const auto add = [&](const char* name, const paths::PathProblem& planned, const Result<paths::PathChoice>& choice,
                       Time began) -> Status {
    if (!choice) return tl::unexpected(choice.error());
    const double took = to_seconds(process::monotonic_now() - began);
    paths::PathSimulation simulation(planned);
    simulation.run(*choice);
    rows.push_back({name, planned, simulation.plan(), took});
    if (auto sound = paths::check_plan(planned, rows.back().plan); !sound)
      return fail("{}: {}", name, sound.error().message);
    return {};
  };
  Time began = process::monotonic_now();
  const auto full = paths::full_pipelines(problem);
  if (!full) return tl::unexpected(full.error());
  if (auto done = add("full pipelines", full->problem, full->choice, began); !done) return tl::unexpected(done.error());
  const paths::PathProblem unskipped = paths::without_skips(problem);
  began = process::monotonic_now();
  if (auto done =
          add("full paths, planned", unskipped, paths::plan_paths(unskipped, improvement_of(unskipped, seed)), began);
      !done)
    return tl::unexpected(done.error());
  began = process::monotonic_now();
  if (auto done = add("skipping, network-blind", problem, paths::blind_paths(problem, seed), began); !done)
    return tl::unexpected(done.error());
  began = process::monotonic_now();
  if (auto done = add("skipping, heuristic", problem, paths::plan_paths(problem, improvement_of(problem, seed)), began);
      !done)
    return tl::unexpected(done.error());
  if (problem.nodes.size() <= kSearchNodesMax) {
    paths::PathSearch search;
    search.improvement = improvement_of(problem, seed);
    began = process::monotonic_now();
    const auto found =
        paths::search_paths(problem, search).map([](const paths::PathSearchResult& result) { return result.choice; });
    if (auto done = add("skipping, search", problem, found, began); !done) return tl::unexpected(done.error());
  }
  return rows;
}

struct Range {
  double median = 0, worst = 0;
};
Range spread(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t half = values.size() / 2;
  return {values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2, values.back()};
}

Status write_chart(OutputFile& file, const config::PathsConfig& paths, const std::vector<std::uint32_t>& regions,
                   const std::vector<PlanRow>& rows) {
  std::vector<std::string> places;
  for (const std::uint32_t region : regions) places.push_back(paths.region[region].name);
  std::vector<ChartedPlan> plans;
  for (const auto& row : rows) plans.push_back({row.name, &row.problem, row.plan});
  const std::string chart = path_chart(plans, places);
  return file.append(bytes_of(chart)).and_then([&] { return file.commit(); });
}

}  // namespace

int bench_paths(config::PathsConfig paths, const PathBenchOptions& options) {
  const auto refuse = [](const std::string& message) {
    spdlog::error("{}", message);
    return 1;
  };
  const std::uint64_t scaled =
      std::accumulate(paths.stages.begin(), paths.stages.end(), std::uint64_t{0}) * options.scale;
  if (scaled > config::kPathNodesMax)
    return refuse(
        fmt::format("--scale {} makes {} nodes, expected at most {}", options.scale, scaled, config::kPathNodesMax));
  for (auto& nodes : paths.stages) nodes *= options.scale;
  if (config::path_visits(paths) > config::kPathVisitsMax)
    return refuse(fmt::format("--scale {} makes {:.0f} visits of stages, expected at most {}", options.scale,
                              config::path_visits(paths), config::kPathVisitsMax));

  const auto regions = paths::draw_regions(paths, paths.seed);
  const paths::PathProblem problem = paths::make_path_problem(paths, regions);
  // Before the long work.
  std::optional<OutputFile> chart;
  if (options.out) {
    auto file = OutputFile::create(*options.out, options.existing);
    if (!file) return refuse(file.error().message);
    chart.emplace(std::move(*file));
  }
  const auto rows = plan_all(problem, paths.seed);
  if (!rows) return refuse(rows.error().message);
  if (chart)
    if (auto written = write_chart(*chart, paths, regions, *rows); !written) return refuse(written.error().message);

  const auto ratio = [](const std::vector<PlanRow>& of, std::size_t row) {
    return of[row].step_seconds() / of[0].step_seconds();
  };
  std::vector<std::vector<double>> ratios(rows->size());
  for (std::size_t i = 0; i < rows->size(); ++i) ratios[i].push_back(ratio(*rows, i));
  for (std::uint32_t draw = 1; draw <= paths.draws; ++draw) {
    const auto other =
        plan_all(paths::make_path_problem(paths, paths::draw_regions(paths, paths.seed + draw)), paths.seed + draw);
    if (!other) return refuse(other.error().message);
    for (std::size_t i = 0; i < rows->size(); ++i) ratios[i].push_back(ratio(*other, i));
  }

  nlohmann::ordered_json json = {{"case", paths.name},
                                 {"nodes", problem.nodes.size()},
                                 {"stages", problem.stages.size()},
                                 {"visits", problem.visits},
                                 {"microbatches", problem.origins().size()},
                                 {"draws", paths.draws + 1}};
  std::string text = fmt::format(
      "{}: {} nodes, {} stages, {} visited, {} microbatches; {} draws of the "
      "regions\n\n{:<26}{:>9}{:>12}{:>13}{:>15}{:>14}\n",
      paths.name, problem.nodes.size(), problem.stages.size(), problem.visits, problem.origins().size(),
      paths.draws + 1, "paths", "step, s", "over full", "planning, s", "median ratio", "worst ratio");
  for (std::size_t i = 0; i < rows->size(); ++i) {
    const auto& row = (*rows)[i];
    const Range all = spread(ratios[i]);
    json["paths"].push_back({{"paths", row.name},
                             {"step_seconds", row.step_seconds()},
                             {"ratio", ratio(*rows, i)},
                             {"planning_seconds", row.planning_seconds},
                             {"coverage", row.plan.coverage},
                             {"median_ratio", all.median},
                             {"worst_ratio", all.worst}});
    text += fmt::format("{:<26}{:>9.1f}{:>12.3f}{:>13.2f}{:>15.3f}{:>14.3f}\n", row.name, row.step_seconds(),
                        ratio(*rows, i), row.planning_seconds, all.median, all.worst);
  }
  fmt::print("{}", options.json ? json.dump() + "\n" : text);
  return 0;
}

}  // namespace isthmus::lab
