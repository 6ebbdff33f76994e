#include "lab/fleet_bench.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/counter_random.h"
#include "config/resolve_run.h"
#include "lab/coordinator_bench.h"
#include "process/clock.h"
#include "scheduler/planner/fleet_advice.h"
#include "scheduler/planner/improve_placement.h"
#include "scheduler/planner/plan_fleet.h"

namespace isthmus::lab {

namespace {

constexpr std::uint32_t kRegions = 12;
constexpr std::uint32_t kDepartures = 50;

// Speeds over a factor of sixteen, 6 to 30 GB, uplinks of 10 to 300 Mb/s; 5 to 15 ms within a region, 20 to 120 ms
// between.
planner::Fleet random_fleet(const FleetBenchOptions& options) {
  const CounterRandom random(options.seed, "fleet");
  std::uint64_t drawn = 0;
  const auto uniform = [&](double least, double most) {
    return least + (most - least) * static_cast<double>(random.bits(drawn++) >> 11) * 0x1.0p-53;
  };
  planner::Fleet fleet;
  fleet.links = protocol::LinkMatrix(kRegions);
  for (std::uint32_t a = 0; a < kRegions; ++a)
    for (std::uint32_t b = a; b < kRegions; ++b)
      fleet.links.record(a, b, {uniform(20e6, 200e6), seconds(a == b ? uniform(.005, .015) : uniform(.02, .12))});
  for (std::uint32_t m = 0; m < options.machines; ++m) {
    planner::FleetMachine& machine = fleet.machines.emplace_back();
    machine.name = fmt::format("m{}", m);
    machine.memory_bytes = uniform(6e9, 30e9);
    const double doublings = uniform(0, 4);
    double gflops = 2000;
    for (double left = doublings; left > 0; --left) gflops *= 1 + std::min(left, 1.0);
    machine.forward = machine.input_gradient = machine.weight_gradient = 1e-9 / gflops;
    machine.up = uniform(10e6, 300e6);
    machine.down = machine.up * uniform(1, 5);
    machine.site = static_cast<std::uint32_t>(random.below(kRegions, drawn++));
  }
  return fleet;
}

// Two layers of width 2048 a stage, microbatches of 4096 tokens, 240 numbers of 4 bits a token.
spec::RunConfig large_run(const FleetBenchOptions& options) {
  spec::RunConfig run;
  run.model.layers = 2 * options.stages;
  run.model.hidden = 2048;
  run.model.heads = 16;
  run.model.context = 1024;
  run.model.vocabulary = 8192;
  run.train.sequences_per_microbatch = 4;
  run.train.microbatches_per_step = options.microbatches;
  run.boundary.rank = 240;
  run.pipeline.layout = "auto";
  run.pipeline.stages = options.stages;
  run.host.activation_mb = 1024;
  config::resolve_values(run);
  return run;
}

nlohmann::json as_json(const CoordinatorFigures& f) {
  return {{"step_seconds", f.step_seconds},
          {"logic_ms", f.logic_ms},
          {"decode_ms", f.decode_ms},
          {"encode_ms", f.encode_ms},
          {"reports", f.reports},
          {"report_bytes", f.report_bytes},
          {"views", f.views},
          {"view_bytes", f.view_bytes},
          {"report_us", f.report_us},
          {"quiet_view_bytes", f.quiet_view_bytes},
          {"expulsion_ms", f.expulsion.ms},
          {"expulsion_bytes", f.expulsion.bytes},
          {"admission_ms", f.admission.ms},
          {"admission_bytes", f.admission.bytes}};
}

void print(const CoordinatorFigures& f) {
  fmt::print("\nthe coordinator, per step of {:.1f} s\n\n", f.step_seconds);
  fmt::print("  {:<46}{:>10.0f} ms, {:.2f} us for one report\n", "its decisions", f.logic_ms, f.report_us);
  fmt::print("  {:<46}{:>10.0f} ms, {:.0f} ms\n", "reports decoded, views encoded", f.decode_ms, f.encode_ms);
  fmt::print("  {:<46}{:>10.0f}, {:.1f} MB\n", "reports in", f.reports, f.report_bytes / 1e6);
  fmt::print("  {:<46}{:>10.0f}, {:.1f} MB; {:.0f} bytes each while nothing changes\n", "views out", f.views,
             f.view_bytes / 1e6, f.quiet_view_bytes);
  fmt::print("  {:<46}{:>10.1f} ms, {:.1f} MB\n", "a worker expelled", f.expulsion.ms, f.expulsion.bytes / 1e6);
  fmt::print("  {:<46}{:>10.1f} ms, {:.1f} MB\n", "a worker admitted", f.admission.ms, f.admission.bytes / 1e6);
}

}  // namespace

int bench_fleet(const FleetBenchOptions& options) {
  const planner::Fleet fleet = random_fleet(options);
  const spec::RunConfig run = large_run(options);

  const Time start = process::monotonic_now();
  const auto plan = planner::plan_fleet(run, fleet);
  if (!plan) {
    spdlog::error("{}", plan.error().message);
    return 1;
  }
  const double plan_seconds = to_seconds(process::monotonic_now() - start);

  const Time begin = process::monotonic_now();
  const auto step = planner::simulate_step(plan->input);
  const double predict_seconds = to_seconds(process::monotonic_now() - begin);

  const Time asked = process::monotonic_now();
  const planner::FleetAdvice advice = planner::fleet_advice(*plan);
  const double advice_seconds = to_seconds(process::monotonic_now() - asked);

  // Each departure is the only one.
  const planner::PlacementProblem problem = planner::placement_problem(*plan);
  const planner::PlacementEstimate planned(problem, plan->placement);
  std::vector<double> milliseconds;
  double worst_ratio = 1;
  for (std::uint32_t i = 0; i < kDepartures; ++i) {
    const auto gone = static_cast<std::uint32_t>(CounterRandom(options.seed, "departures").below(options.machines, i));
    const Time left = process::monotonic_now();
    planner::PlacementEstimate estimate(problem, plan->placement);
    if (!planner::replace_departed(problem, estimate, gone)) continue;
    milliseconds.push_back(to_seconds(process::monotonic_now() - left) * 1e3);
    worst_ratio = std::max(worst_ratio, estimate.step_seconds() / planned.step_seconds());
  }
  std::ranges::sort(milliseconds);
  const double median = milliseconds.empty() ? 0 : milliseconds[milliseconds.size() / 2],
               most = milliseconds.empty() ? 0 : milliseconds.back();

  // Microbatches a second, if no device ever waited.
  double operations = 0, speed = 0;
  for (const auto& stage : problem.stages) operations += stage.operations;
  for (const auto& machine : fleet.machines) speed += 1 / machine.seconds_per_operation();
  const double bound = speed / operations;
  // The same, if only its own connection held a machine up.
  double with_links = 0;
  for (std::uint32_t m = 0; m < options.machines; ++m)
    with_links += planner::PlacementEstimate::rate(problem, m, options.stages / 2) *
                  problem.stages[options.stages / 2].operations / operations;
  const double estimated = options.microbatches / planned.step_seconds(),
               predicted = options.microbatches / to_seconds(step.step);
  double steady = 0;
  for (std::uint32_t s = 0; s < options.stages; ++s) steady = std::max(steady, planned.stage_seconds(s));
  const auto spares = std::ranges::count(plan->placement, planner::kSpare);

  CoordinatorBenchOptions load;
  load.workers = options.machines;
  load.stages = options.stages;
  load.microbatches = options.microbatches;
  load.step_seconds = options.step_seconds;
  const CoordinatorFigures coordinator = measure_coordinator(load);

  if (options.json) {
    fmt::print("{}\n", nlohmann::json{{"machines", options.machines},
                                      {"stages", options.stages},
                                      {"microbatches", options.microbatches},
                                      {"seed", options.seed},
                                      {"plan_seconds", plan_seconds},
                                      {"advice_seconds", advice_seconds},
                                      {"changes_tried", advice.tried},
                                      {"predict_seconds", predict_seconds},
                                      {"replan_ms_median", median},
                                      {"replan_ms_most", most},
                                      {"replan_step_ratio_most", worst_ratio},
                                      {"spares", spares},
                                      {"microbatches_per_second", predicted},
                                      {"microbatches_per_second_estimated", estimated},
                                      {"microbatches_per_second_bound", bound},
                                      {"microbatches_per_second_bound_with_links", with_links},
                                      {"share_of_bound", predicted / bound},
                                      {"steady_share_of_bound", options.microbatches / steady / bound},
                                      {"coordinator", as_json(coordinator)}}
                           .dump());
    return 0;
  }
  fmt::print("{} machines, {} stages, {} microbatches a step, seed {}\n\n", options.machines, options.stages,
             options.microbatches, options.seed);
  fmt::print("  {:<46}{:>10.2f} s\n", "plan", plan_seconds);
  fmt::print("  {:<46}{:>10.2f} s\n",
             fmt::format("what would help: {} of {} changes", advice.tried, advice.tried + advice.untried),
             advice_seconds);
  fmt::print("  {:<46}{:>10.2f} s\n", "predict one step", predict_seconds);
  fmt::print("  {:<46}{:>10.2f} ms, at most {:.2f}\n",
             fmt::format("plan after a departure, median of {}", milliseconds.size()), median, most);
  fmt::print("  {:<46}{:>10.4f} times the step before\n", "step after a departure, at most", worst_ratio);
  fmt::print("  {:<46}{:>10}\n", "spares", spares);
  fmt::print("  {:<46}{:>10.2f} microbatches/s\n", "all devices together, never waiting", bound);
  fmt::print("  {:<46}{:>10.2f} microbatches/s, {:.1f} % of it\n", "waiting for their own connections only", with_links,
             100 * with_links / bound);
  fmt::print("  {:<46}{:>10.2f} microbatches/s, {:.1f} % of it\n", "slowest stage, once the pipeline is full",
             options.microbatches / steady, 100 * options.microbatches / steady / bound);
  fmt::print("  {:<46}{:>10.2f} microbatches/s, {:.1f} % of it\n", "predicted, filling and draining included",
             predicted, 100 * predicted / bound);
  print(coordinator);
  return 0;
}

}  // namespace isthmus::lab
