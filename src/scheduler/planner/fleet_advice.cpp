#include "scheduler/planner/fleet_advice.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "spec/boundary_form.h"

namespace isthmus::planner {

namespace {

constexpr std::size_t kTried = 32;  // stages, and machines
constexpr std::size_t kShown = 3;

// The first workers by `measure`, largest first.
template <class Measure>
std::vector<std::uint32_t> busiest(const FleetPlan& plan, const Measure& measure) {
  std::vector<std::uint32_t> workers(plan.machine_of.size());
  for (std::uint32_t w = 0; w < workers.size(); ++w) workers[w] = w;
  std::ranges::stable_sort(workers, std::greater(),
                           [&](std::uint32_t w) { return measure(plan.simulation.workers[w]); });
  return workers;
}

// A change that has not been tried.
struct FleetChange {
  std::string what;
  std::function<FleetPlan()> made;
};

// Of each stage its quickest machine once more, the stage with the busiest machine first.
std::vector<FleetChange> more_replicas(const FleetPlan& plan) {
  std::vector<FleetChange> changes;
  std::vector<bool> seen(plan.run.pipeline.stage.size());
  for (const std::uint32_t busy : busiest(plan, [](const WorkerSimulation& w) { return w.busy; })) {
    const std::uint32_t s = plan.simulation.workers[busy].stage.value;
    if (seen[s] || changes.size() == kTried) continue;
    seen[s] = true;
    std::uint32_t quickest = busy;
    for (std::uint32_t w = 0; w < plan.machine_of.size(); ++w)
      if (plan.simulation.workers[w].stage.value == s &&
          plan.input.costs[w].total() < plan.input.costs[quickest].total())
        quickest = w;
    const std::uint32_t machine = plan.machine_of[quickest];
    changes.push_back(
        {fmt::format("a replica of stage {} like {}", s, plan.fleet.machines[machine].name), [&plan, s, machine] {
           Fleet fleet = plan.fleet;
           fleet.machines.push_back(fleet.machines[machine]);
           Placement placement = plan.placement;
           placement.push_back(s);
           return predict_plan(plan.asked, fleet, ends_of(plan.run), placement);
         }});
  }
  return changes;
}

std::vector<FleetChange> faster_uplinks(const FleetPlan& plan) {
  std::vector<FleetChange> changes;
  for (const std::uint32_t sender : busiest(plan, [](const WorkerSimulation& w) { return w.uplink_busy; })) {
    if (changes.size() == kTried) break;
    const std::uint32_t machine = plan.machine_of[sender];
    changes.push_back({fmt::format("twice the uplink at {}", plan.fleet.machines[machine].name), [&plan, machine] {
                         Fleet fleet = plan.fleet;
                         fleet.machines[machine].up *= 2;
                         return predict_plan(plan.asked, fleet, ends_of(plan.run), plan.placement);
                       }});
  }
  return changes;
}

std::vector<FleetChange> smaller_rank(const FleetPlan& plan) {
  if (!spec::boundary_form(plan.run.boundary.codec).narrow || plan.run.boundary.rank < 2) return {};
  return {{fmt::format("half the rank, {} instead of {}", plan.run.boundary.rank / 2, plan.run.boundary.rank), [&plan] {
             spec::RunConfig half = plan.asked;
             half.boundary.rank /= 2;
             return predict_plan(half, plan.fleet, ends_of(plan.run), plan.placement);
           }}};
}

}  // namespace

FleetAdvice fleet_advice(const FleetPlan& plan, double events) {
  // One of each kind in turn, so that of a large fleet some of each are tried.
  const auto replicas = more_replicas(plan), uplinks = faster_uplinks(plan), rank = smaller_rank(plan);
  std::vector<const FleetChange*> changes;
  for (std::size_t i = 0; i < kTried; ++i)
    for (const auto* kind : {&replicas, &uplinks, &rank})
      if (i < kind->size()) changes.push_back(&(*kind)[i]);

  FleetAdvice advice;
  const double each = predicted_events(plan.input.plan);
  for (const FleetChange* change : changes) {
    if (advice.tried > 0 && events < each) {
      ++advice.untried;
      continue;
    }
    events -= each;
    ++advice.tried;
    advice.best.push_back({change->what, change->made().tokens_per_second()});
  }
  std::ranges::stable_sort(advice.best, std::greater(), &Advice::tokens_per_second);
  // What changes less than a thousandth is chance.
  std::erase_if(advice.best,
                [&](const Advice& one) { return one.tokens_per_second < plan.tokens_per_second() * 1.001; });
  if (advice.best.size() > kShown) advice.best.resize(kShown);
  return advice;
}

}  // namespace isthmus::planner
