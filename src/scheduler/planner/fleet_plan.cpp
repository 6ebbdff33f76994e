#include "scheduler/planner/fleet_plan.h"

#include <algorithm>

#include "config/resolve_run.h"
#include "scheduler/planner/make_plan.h"

namespace isthmus::planner {

namespace {

std::vector<std::vector<std::uint32_t>> members_of(const Placement& placement, std::size_t stages) {
  std::vector<std::vector<std::uint32_t>> members(stages);
  for (std::uint32_t m = 0; m < placement.size(); ++m)
    if (placement[m] != kSpare) members[placement[m]].push_back(m);
  return members;
}

std::vector<double> lines_of(const Fleet& fleet, const std::vector<std::vector<std::uint32_t>>& members) {
  std::vector<double> lines;
  for (const auto& stage : members) lines.push_back(slowest_line(fleet, stage, count_sites(fleet, stage)));
  return lines;
}

}  // namespace

double FleetPlan::tokens_per_second() const {
  return static_cast<double>(input.plan.tokens_per_microbatch) * input.plan.microbatches / to_seconds(simulation.step);
}

spec::RunConfig placed_run(const spec::RunConfig& asked, const Fleet& fleet, const std::vector<std::uint32_t>& ends,
                           const Placement& placement) {
  const auto members = members_of(placement, ends.size());
  std::vector<spec::RunConfig::Stage> map;
  for (std::size_t s = 0; s < ends.size(); ++s)
    map.push_back({s == 0 ? 0 : ends[s - 1], ends[s], static_cast<std::uint32_t>(members[s].size())});
  spec::RunConfig run = asked;
  config::resolve_map(run, std::move(map), lines_of(fleet, members));
  return run;
}

namespace {

FleetPlan predict_placement(const spec::RunConfig& asked, const Fleet& fleet, const std::vector<std::uint32_t>& ends,
                            const Placement& placement, std::uint32_t path_width) {
  FleetPlan plan{
      .asked = asked, .run = placed_run(asked, fleet, ends, placement), .fleet = fleet, .placement = placement};
  const auto members = members_of(placement, ends.size());
  const auto lines = lines_of(fleet, members);
  for (std::size_t s = 0; s < ends.size(); ++s) {
    plan.machine_of.insert(plan.machine_of.end(), members[s].begin(), members[s].end());
    plan.sum_seconds =
        std::max(plan.sum_seconds, config::exact_sync_seconds(plan.run, plan.run.pipeline.stage[s], lines[s]));
  }
  plan.input = fleet_input(plan.run, fleet, plan.machine_of);
  plan.input.path_width = path_width;
  plan.simulation = simulate_step(plan.input);
  return plan;
}

// Machines of the plan that get no microbatch, by stages of which others do.
std::vector<std::uint32_t> idle_machines(const FleetPlan& plan) {
  std::vector<bool> served(plan.run.pipeline.stage.size());
  for (const auto& worker : plan.simulation.workers)
    if (worker.microbatches > 0) served[worker.stage.value] = true;
  std::vector<std::uint32_t> idle;
  for (std::size_t w = 0; w < plan.machine_of.size(); ++w)
    if (const auto& worker = plan.simulation.workers[w]; worker.microbatches == 0 && served[worker.stage.value])
      idle.push_back(plan.machine_of[w]);
  return idle;
}

}  // namespace

FleetPlan predict_plan(const spec::RunConfig& asked, const Fleet& fleet, const std::vector<std::uint32_t>& ends,
                       const Placement& placement, std::uint32_t path_width) {
  FleetPlan plan = predict_placement(asked, fleet, ends, placement, path_width);
  // Each time there are fewer, and how the others agree may be another way now.
  for (auto idle = idle_machines(plan); !idle.empty(); idle = idle_machines(plan)) {
    Placement fewer = plan.placement;
    for (const std::uint32_t m : idle) fewer[m] = kSpare;
    plan = predict_placement(asked, fleet, ends, fewer, path_width);
  }
  return plan;
}

std::vector<std::uint32_t> ends_of(const spec::RunConfig& run) {
  std::vector<std::uint32_t> ends;
  for (const auto& stage : run.pipeline.stage) ends.push_back(stage.end_layer);
  return ends;
}

StepSimulationInput fleet_input(const spec::RunConfig& run, const Fleet& fleet,
                                const std::vector<std::uint32_t>& machine_of) {
  StepSimulationInput input;
  input.plan = make_plan(run);
  input.link = link_costs(run.link);
  input.pairs = fleet.links;
  std::size_t worker = 0;
  for (const auto& stage : input.plan.stages) {
    const double operations = planned_operations(run, fleet, stage.first_layer, stage.end_layer);
    for (std::uint32_t r = 0; r < stage.replicas; ++r, ++worker) {
      const FleetMachine& machine = fleet.machines[machine_of[worker]];
      input.costs.push_back(machine.costs(operations));
      input.rates.push_back({machine.up, machine.down});
      input.sites.push_back(machine.site);
    }
  }
  return input;
}

double predicted_events(const protocol::Plan& plan) {
  // F, I and W; the chunks there and back, and their arrivals.
  const double chunks = static_cast<double>(plan.token_bytes + plan.forward_bytes + plan.backward_bytes) / 65536 + 2;
  return static_cast<double>(plan.microbatches) * static_cast<double>(plan.stages.size()) * (3 + chunks);
}

}  // namespace isthmus::planner
