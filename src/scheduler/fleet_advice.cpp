#include "scheduler/fleet_advice.h"

#include <fmt/format.h>

#include <algorithm>

#include "config/boundary_form.h"

namespace isthmus {

namespace {

constexpr std::size_t kTried = 32;  // stages, and machines
constexpr std::size_t kShown = 3;

double tokens_per_second(const StepSimulationInput& input) {
  return static_cast<double>(input.plan.tokens_per_microbatch) * input.plan.microbatches / to_seconds(simulate_step(input).step);
}

// The first workers by `measure`, largest first.
template <class Measure>
std::vector<std::uint32_t> busiest(const FleetPlan& plan, const Measure& measure) {
  std::vector<std::uint32_t> workers(plan.machine_of.size());
  for (std::uint32_t w = 0; w < workers.size(); ++w) workers[w] = w;
  std::ranges::stable_sort(workers, std::greater(), [&](std::uint32_t w) { return measure(plan.simulation.workers[w]); });
  return workers;
}

}  // namespace

std::vector<Advice> fleet_advice(const FleetPlan& plan) {
  std::vector<Advice> all;
  StepSimulationInput base = plan.input;
  base.path_width = 0;

  // Of each stage its quickest machine once more, as a new worker behind its siblings.
  std::vector<bool> seen(base.plan.stages.size());
  std::size_t tried = 0;
  for (const std::uint32_t busy : busiest(plan, [](const WorkerSimulation& w) { return w.busy; })) {
    const std::uint32_t s = plan.simulation.workers[busy].stage.value;
    if (seen[s] || tried == kTried) continue;
    seen[s] = true;
    ++tried;
    std::uint32_t quickest = busy, end = 0;
    for (std::uint32_t w = 0; w < plan.machine_of.size(); ++w) {
      if (plan.simulation.workers[w].stage.value == s && base.costs[w].total() < base.costs[quickest].total()) quickest = w;
      if (plan.simulation.workers[w].stage.value <= s) end = w + 1;
    }
    StepSimulationInput more = base;
    ++more.plan.stages[s].replicas;
    more.costs.insert(more.costs.begin() + end, base.costs[quickest]);
    more.rates.insert(more.rates.begin() + end, base.rates[quickest]);
    more.sites.insert(more.sites.begin() + end, base.sites[quickest]);
    all.push_back({fmt::format("a replica of stage {} like {}", s, plan.fleet.machines[plan.machine_of[quickest]].name), tokens_per_second(more)});
  }

  const auto senders = busiest(plan, [](const WorkerSimulation& w) { return w.uplink_busy; });
  for (std::size_t i = 0; i < std::min(senders.size(), kTried); ++i) {
    StepSimulationInput faster = base;
    faster.rates[senders[i]].up *= 2;
    all.push_back({fmt::format("twice the uplink at {}", plan.fleet.machines[plan.machine_of[senders[i]]].name), tokens_per_second(faster)});
  }

  if (boundary_form(plan.run.boundary.codec).narrow && plan.run.boundary.rank > 1) {
    RunConfig half = plan.run;
    half.boundary.rank /= 2;
    all.push_back({fmt::format("half the rank, {} instead of {}", half.boundary.rank, plan.run.boundary.rank), tokens_per_second(fleet_input(half, plan.fleet, plan.machine_of))});
  }

  std::ranges::stable_sort(all, std::greater(), &Advice::tokens_per_second);
  // What changes less than a thousandth is chance.
  std::erase_if(all, [&](const Advice& advice) { return advice.tokens_per_second < plan.tokens_per_second() * 1.001; });
  if (all.size() > kShown) all.resize(kShown);
  return all;
}

}  // namespace isthmus
