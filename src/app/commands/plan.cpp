#include <fmt/format.h>

#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "app/commands/command_line.h"
#include "app/commands/number_option.h"
#include "process/cpu.h"
#include "scheduler/planner/fleet_text.h"
#include "scheduler/planner/plan_text.h"

namespace isthmus::app {

void add_plan(CommandLine& line) {
  RunArguments& run = line.keep<RunArguments>();
  bool& as_json = line.keep<bool>();
  std::optional<double>& gflops = line.keep<std::optional<double>>();
  std::vector<std::string>& departed = line.keep<std::vector<std::string>>();
  auto* plan_command = line.app().add_subcommand(
      "plan", "Check a run file and show its stage × time grid, memory, bytes per link and predicted speed");
  run.add_to(*plan_command);
  plan_command->add_option("--measured", run.measured,
                           "fleet.toml of a run: plan for its machines and links as they were measured");
  plan_command
      ->add_option("--without", departed,
                   "A machine of the fleet that has left: the plan without it, in which one other moves at most; may "
                   "be repeated")
      ->allow_extra_args(false);
  plan_command->add_flag("--json", as_json, "Machine-readable output");
  add_number(*plan_command, "--gflops", gflops,
             "Speed of one worker's device, to estimate compute times with (default: 50)", 0.001, 1e9);
  add_example(*plan_command, "isthmus plan configs/webster.toml --set boundary.rank=30");
  plan_command->callback([&] {
    line.chosen = [&] {
      return with_run(
          run,
          [&](const spec::RunConfig& config) {
            if (!departed.empty()) {
              fmt::print(stderr, "--without {}: {} has no fleet\n", departed.front(), run.file);
              return kUsage;
            }
            planner::PlanTextOptions options;
            if (config.host.device == "cpu") options.bf16 = process::cpu_multiplies_bf16();
            if (gflops) options.gflops = *gflops;
            fmt::print("{}", as_json ? planner::plan_json(config, options) : planner::plan_text(config, options));
            return 0;
          },
          [&](planner::FleetPlan plan) {
            if (gflops) {
              fmt::print(
                  stderr,
                  "--gflops is for a run without a fleet, expected the speed of each [[fleet.machine]] in its table\n");
              return kUsage;
            }
            for (const auto& name : departed) {
              auto without = planner::plan_without(plan, name);
              if (!without) {
                fmt::print(stderr, "--without {}: {}\n", name, without.error().message);
                return kUsage;
              }
              plan = std::move(*without);
            }
            fmt::print("{}", as_json ? planner::fleet_json(plan) : planner::fleet_text(plan));
            return 0;
          });
    };
  });
}

}  // namespace isthmus::app
