#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "app/commands/command_line.h"
#include "app/commands/number_option.h"
#include "config/load_paths.h"
#include "config/sweep_config.h"
#include "lab/codec_bench.h"
#include "lab/fleet_bench.h"
#include "lab/local_run.h"
#include "lab/path_bench.h"
#include "lab/rebalance_bench.h"
#include "lab/sweep.h"

namespace isthmus::app {

namespace {

void add_convergence(CommandLine& line, CLI::App& bench) {
  std::string& sweep_file = line.keep<std::string>();
  lab::SweepOptions& sweep_options = line.keep<lab::SweepOptions>();
  sweep_options.jobs = std::max(1u, std::thread::hardware_concurrency());
  auto* convergence_command = bench.add_subcommand(
      "convergence",
      "Loss against tokens, bytes and seconds of many runs under one protocol; goes on with a sweep that was stopped");
  convergence_command
      ->add_option("SWEEP.toml", sweep_file, "Sweep file: a base run, seeds, rows (configs/sweep.schema.json)")
      ->required();
  convergence_command->add_option("--out", sweep_options.out, "Folder the sweep leaves behind (default: runs/NAME)");
  add_number(*convergence_command, "--jobs", sweep_options.jobs, "Runs at a time, one core each", 1, 4096);
  convergence_command->add_flag("--json", sweep_options.as_json, "Machine-readable output");
  add_example(*convergence_command, "isthmus bench convergence configs/convergence/quick.toml --out runs/sweep");
  convergence_command->callback([&] {
    line.chosen = [&] {
      const auto sweep = config::load_sweep(sweep_file);
      if (!sweep) return refuse(sweep.error(), sweep_file);
      if (sweep_options.out.empty()) sweep_options.out = "runs/" + sweep->name;
      return lab::run_sweep(*sweep, sweep_options);
    };
  });
}

void add_codecs(CommandLine& line, CLI::App& bench) {
  RunArguments& run = line.keep<RunArguments>();
  lab::CodecBenchOptions& codec_options = line.keep<lab::CodecBenchOptions>();
  auto* codecs_command = bench.add_subcommand(
      "codecs", "Speed of every boundary codec on one of a run's microbatches, beside the memory's");
  run.add_to(*codecs_command);
  add_number(*codecs_command, "--seconds", codec_options.seconds, "Time for each figure", 0.01, 60);
  codecs_command->add_flag("--json", codec_options.json, "Machine-readable output");
  add_example(*codecs_command, "isthmus bench codecs configs/webster.toml --seconds 1");
  codecs_command->callback([&] {
    line.chosen = [&] {
      return with_run(run, [&](const spec::RunConfig& config) { return lab::bench_codecs(config, codec_options); });
    };
  });
}

void add_rebalance(CommandLine& line, CLI::App& bench) {
  lab::RebalanceBenchOptions& rebalance_options = line.keep<lab::RebalanceBenchOptions>();
  lab::PreemptionOptions& preemption = rebalance_options.preemption;
  auto* rebalance_command = bench.add_subcommand(
      "rebalance",
      "Simulated throughput of stages whose machines are taken away and replaced, with and without moving replicas");
  add_number(*rebalance_command, "--stages", preemption.stages, "Stages of the pipeline", 1, 1000);
  add_number(*rebalance_command, "--peers", preemption.peers, "Machines at the start, and on average", 1, 10'000);
  add_number(*rebalance_command, "--hours", preemption.hours, "Simulated time", 1, 1000);
  add_number(*rebalance_command, "--lifetime-hours", preemption.lifetime_hours,
             "Mean time until a machine is taken away", 0.1, 1e6);
  add_number(*rebalance_command, "--state-bytes", preemption.state_bytes,
             "Weights and optimizer of one stage, fetched by newcomers and movers", 1, 1'000'000'000'000);
  add_number(*rebalance_command, "--spread", preemption.spread, "Speeds of machines are uniform within 1 ± this", 0,
             0.99);
  add_number(*rebalance_command, "--noise", preemption.noise, "Standard deviation of measured times, relative", 0, 1);
  add_number(*rebalance_command, "--seeds", rebalance_options.seeds, "Simulated swarms", 1, 10'000);
  rebalance_command->add_flag("--json", rebalance_options.json, "Machine-readable output");
  add_example(*rebalance_command, "isthmus bench rebalance --hours 8");
  rebalance_command->callback([&] { line.chosen = [&] { return lab::bench_rebalance(rebalance_options); }; });
}

void add_paths(CommandLine& line, CLI::App& bench) {
  std::string& paths_file = line.keep<std::string>();
  lab::PathBenchOptions& path_options = line.keep<lab::PathBenchOptions>();
  auto* paths_command = bench.add_subcommand(
      "paths", "Step time of planned paths that skip stages, beside full pipelines and blind skipping");
  paths_command->add_option("CASE.toml", paths_file, "Nodes, links and costs (configs/paths.schema.json)")->required();
  add_number(*paths_command, "--scale", path_options.scale, "Times as many nodes in every stage", 1, 1000);
  paths_command->add_option("--out", path_options.out, "SVG file to draw the plans into, a row for each node");
  add_force(*paths_command, path_options.existing, "the file of --out");
  paths_command->add_flag("--json", path_options.json, "Machine-readable output");
  add_example(*paths_command, "isthmus bench paths configs/paths/skippipe-20.toml --out plans.svg");
  paths_command->callback([&] {
    line.chosen = [&] {
      const auto paths = config::load_paths(paths_file);
      return paths ? lab::bench_paths(*paths, path_options) : refuse(paths.error(), paths_file);
    };
  });
}

void add_fleet(CommandLine& line, CLI::App& bench) {
  lab::FleetBenchOptions& fleet_options = line.keep<lab::FleetBenchOptions>();
  auto* fleet_command = bench.add_subcommand(
      "fleet", "Time to plan a random fleet, to plan again when a machine leaves, and to coordinate it");
  add_number(*fleet_command, "--machines", fleet_options.machines, "Machines", 1, 100'000);
  add_number(*fleet_command, "--stages", fleet_options.stages, "Stages, two layers each", 1, 1000);
  add_number(*fleet_command, "--microbatches", fleet_options.microbatches, "Microbatches a step", 1, 100'000);
  add_number(*fleet_command, "--step-seconds", fleet_options.step_seconds,
             "Length of a step that the coordinator is measured with", 0.5, 3600);
  add_number(*fleet_command, "--seed", fleet_options.seed, "Decides the machines and their links", 0, kSeedMax);
  fleet_command->add_flag("--json", fleet_options.json, "Machine-readable output");
  add_example(*fleet_command, "isthmus bench fleet --machines 100 --stages 10");
  fleet_command->callback([&] { line.chosen = [&] { return lab::bench_fleet(fleet_options); }; });
}

void add_local_run(CommandLine& line, CLI::App& bench) {
  RunArguments& run = line.keep<RunArguments>();
  lab::LocalRunOptions& local_options = line.keep<lab::LocalRunOptions>();
  auto* local_command = bench.add_subcommand("run", "Run a whole run in this process (`convergence` starts it)");
  local_command->group("");
  run.add_to(*local_command);
  local_command->add_option("--result", local_options.result, "File to write")->required();
  std::vector<std::uint64_t>& absent = line.keep<std::vector<std::uint64_t>>();
  add_number(*local_command, "--absent", absent, "Stage that is gone, from which step on, for how many steps", 0,
             kSeedMax)
      ->expected(3);
  add_number(*local_command, "--progress-fd", local_options.progress_fd, "Descriptor to tell the progress to", -1,
             1'000'000);
  local_command->callback([&] {
    if (!absent.empty())
      local_options.absence = config::Absence{static_cast<std::uint32_t>(absent[0]), absent[1], absent[2]};
    line.chosen = [&] {
      return with_run(run, [&](const spec::RunConfig& config) { return lab::run_locally(config, local_options); });
    };
  });
}

}  // namespace

void add_bench(CommandLine& line) {
  auto* bench_command = line.app().add_subcommand("bench", "Measure training itself");
  bench_command->require_subcommand(1);
  add_example(*bench_command, "isthmus bench codecs configs/webster.toml");
  add_convergence(line, *bench_command);
  add_codecs(line, *bench_command);
  add_rebalance(line, *bench_command);
  add_paths(line, *bench_command);
  add_fleet(line, *bench_command);
  add_local_run(line, *bench_command);
}

}  // namespace isthmus::app
