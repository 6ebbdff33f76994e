#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "app/commands/command_line.h"
#include "app/commands/number_option.h"
#include "scheduler/planner/make_plan.h"
#include "sim/simulation.h"
#include "spec/run_config.h"

namespace isthmus::app {

namespace {

struct SimulateOptions {
  std::uint64_t seed = 1;
  std::uint64_t runs = 1;    // of seeds seed, seed + 1, …
  std::string kinds;         // comma-separated fault kinds; empty: all
  std::uint32_t faults = 0;  // per run; 0: drawn
  std::uint64_t steps = 8;   // of the run file's, at most
  bool homes = false;
  bool any_shape = false;  // stages, replicas and microbatches from the seed instead of the run file
  bool json = false;       // a line per run
};

// The protocol does not look into tensors: a few numbers stand for each stage's weights.
protocol::Plan simulated(const spec::RunConfig& run, std::uint64_t steps_max) {
  constexpr std::uint64_t kParameters = 5;
  protocol::Plan plan = planner::make_plan(run);
  plan.steps = std::min(plan.steps, steps_max);
  plan.token_bytes = plan.forward_bytes = plan.backward_bytes = 8;
  plan.part_width = plan.total_width = 8;
  plan.tokens_per_microbatch = 1;
  if (plan.evaluate_every > plan.steps / 2) plan.evaluate_every = plan.steps / 2;
  if (plan.checkpoint_every > plan.steps / 2) plan.checkpoint_every = plan.steps / 2;
  for (auto& stage : plan.stages) {
    stage.parameters = kParameters;
    stage.state_bytes = kParameters * 8;
  }
  return plan;
}

// Of the run's tensors, at their real size.
sim::SimulatedLink link_of(const spec::RunConfig& run) {
  const protocol::Plan plan = planner::make_plan(run);
  const double bytes = static_cast<double>(std::max(plan.forward_bytes + plan.token_bytes, plan.backward_bytes));
  return {seconds(run.link.latency_ms * 1e-3), seconds(bytes * 8 / (run.link.bandwidth_mbps * 1e6))};
}

nlohmann::json json_of(const sim::SimulationResult& result) {
  nlohmann::json faults = nlohmann::json::array();
  for (const auto& fault : result.faults) faults.push_back(fault.text());
  return {{"seed", result.seed},
          {"shape", result.shape},
          {"hash", fmt::format("{:016x}", result.hash)},
          {"commits", result.commits},
          {"messages", result.messages},
          {"replayed_microbatches", result.replayed},
          {"seconds", result.seconds},
          {"faults", faults},
          {"events", result.events},
          {"violations", result.violations}};
}

void print(const sim::SimulationResult& result, bool with_faults) {
  fmt::print(
      "seed {}: {}; {} commits, {} messages, {} microbatches done again, {:.1f} simulated seconds, log {:016x}\n",
      result.seed, result.shape, result.commits, result.messages, result.replayed, result.seconds, result.hash);
  if (!with_faults && result.violations.empty()) return;
  for (const auto& fault : result.faults) fmt::print("  {}\n", fault.text());
  for (const auto& [event, count] : result.events) fmt::print("  {} × {}\n", count, event);
  for (const auto& violation : result.violations) fmt::print("  VIOLATION: {}\n", violation);
}

int simulate_run(const spec::RunConfig& run, const SimulateOptions& options) {
  sim::SimulationOptions simulation;
  std::string unknown;
  simulation.kinds = sim::fault_kinds(options.kinds, unknown);
  if (!unknown.empty()) {
    std::string known;
    for (std::size_t k = 0; k < sim::kFaultKinds; ++k)
      known += fmt::format("{}{}", k ? ", " : "", sim::name_of(static_cast<sim::FaultKind>(k)));
    fmt::print(stderr, "--faults: there is no fault \"{}\", expected some of {}\n", unknown, known);
    return 2;
  }
  simulation.faults = options.faults;
  simulation.homes = options.homes;
  const protocol::Plan of_run = simulated(run, options.steps);
  if (!options.any_shape) simulation.link = link_of(run);
  // Further than that the simulated clock does not go, with faults.
  constexpr double kYear = 365.25 * 86'400;
  if (const double years = simulation.link ? sim::steps_take(of_run, *simulation.link) / kYear : 0; years > 10) {
    fmt::print(stderr, "--steps {}: on this link they take {:.0f} years, expected at most 10\n", options.steps, years);
    return 2;
  }
  std::uint64_t violated = 0;
  for (std::uint64_t seed = options.seed; seed < options.seed + options.runs; ++seed) {
    const auto result = sim::simulate(options.any_shape ? sim::draw_plan(seed) : of_run, seed, simulation);
    violated += !result.violations.empty();
    if (options.json)
      fmt::print("{}\n", json_of(result).dump());
    else if (options.runs <= 20 || !result.violations.empty())
      print(result, options.runs == 1);
    else if ((seed - options.seed + 1) % (options.runs / 10 + 1) == 0)
      fmt::print(stderr, "{} of {} runs\n", seed - options.seed + 1, options.runs);
  }
  if (!options.json) fmt::print("{} run{}, {} with violations\n", options.runs, options.runs == 1 ? "" : "s", violated);
  return violated == 0 ? 0 : 1;
}

}  // namespace

void add_simulate(CommandLine& line) {
  RunArguments& run = line.keep<RunArguments>();
  SimulateOptions& simulate_options = line.keep<SimulateOptions>();
  auto* simulate_command = line.app().add_subcommand(
      "simulate", "Run the protocol of a run on simulated links, devices and faults, and check it");
  run.add_to(*simulate_command);
  add_number(*simulate_command, "--seed", simulate_options.seed,
             "Decides everything that happens; the same seed replays it", 0, kSeedMax);
  add_number(*simulate_command, "--runs", simulate_options.runs, "Runs, with seeds from --seed on", 1, 100'000'000);
  simulate_command->add_option("--faults", simulate_options.kinds,
                               "Kinds of faults, comma-separated (crash,freeze,loss …) (default: all)");
  add_number(*simulate_command, "--count", simulate_options.faults, "Faults per run; 0: from the seed", 0, 1000);
  add_number(*simulate_command, "--steps", simulate_options.steps, "At most this many steps of the run", 1, 1000);
  simulate_command->add_flag("--any-shape", simulate_options.any_shape,
                             "Stages (2-8), replicas (1-4) and microbatches from the seed, not from the run file");
  simulate_command->add_flag("--homes", simulate_options.homes,
                             "Workers live in homes: most behind routers that let nobody in, some in one home, some "
                             "with one address; relays, addresses and sleep are among the faults");
  simulate_command->add_flag("--json", simulate_options.json, "A line of JSON per run");
  add_example(*simulate_command, "isthmus simulate configs/webster.toml --seed 7 --faults crash,loss");
  simulate_command->callback([&] {
    line.chosen = [&] {
      return with_run(run, [&](const spec::RunConfig& config) { return simulate_run(config, simulate_options); });
    };
  });
}

}  // namespace isthmus::app
