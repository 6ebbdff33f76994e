#include "scheduler/planner/fleet_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "config/load_run.h"
#include "scheduler/planner/fleet_advice.h"
#include "scheduler/planner/spare_reasons.h"
#include "scheduler/planner/step_grid.h"

namespace isthmus::planner {

namespace {

constexpr std::size_t kLinksShown = 16;

// Shares of the step, means over the replicas of a stage.
struct StageWaits {
  double busy = 0, forward = 0, gradient = 0, link = 0, end = 0;

  double idle() const { return forward + gradient + link + end; }
  std::string_view cause() const {
    const double most = std::max({forward, gradient, link, end});
    if (most == 0) return "nothing";
    return most == forward ? "forward" : most == gradient ? "gradient" : most == link ? "link" : "end of step";
  }
};

StageWaits waits_of(const StepSimulation& simulation, std::uint32_t stage) {
  StageWaits waits;
  double replicas = 0;
  for (const auto& worker : simulation.workers) {
    if (worker.stage.value != stage) continue;
    ++replicas;
    waits.busy += to_seconds(worker.busy);
    waits.forward += to_seconds(worker.waited_forward);
    waits.gradient += to_seconds(worker.waited_gradient);
    waits.link += to_seconds(worker.waited_link);
    waits.end += to_seconds(worker.waited_end);
  }
  for (double* share : {&waits.busy, &waits.forward, &waits.gradient, &waits.link, &waits.end})
    *share /= replicas * to_seconds(simulation.step);
  return waits;
}

std::string table_row(const std::string& machine, const std::string& stage, const std::string& microbatches,
                      const std::string& busy, const std::string& uplink, const std::string& memory) {
  return fmt::format("  {:<20} {:<8} {:>12} {:>8} {:>8}   {}\n", machine, stage, microbatches, busy, uplink, memory);
}

// How replicas agree, and why so; empty if no stage has any.
std::string sync_text(const FleetPlan& plan) {
  if (std::ranges::all_of(plan.run.pipeline.stage, [](const auto& stage) { return stage.replicas == 1; })) return "";
  const std::string why = plan.asked.sync.mode.empty() ? "" : ", as the run file says";
  if (plan.run.sync.mode == "exact")
    return fmt::format("replicas   exact{}: every step they add up their gradients; {:.2g} s of the slowest line\n",
                       why, plan.sum_seconds);
  return fmt::format(
      "replicas   {} every {} steps{}: the sum of gradients would take the slowest line {:.2g} s of every step\n",
      plan.run.sync.mode, plan.run.sync.every, why, plan.sum_seconds);
}

std::string percent(double share) { return fmt::format("{:.0f} %", share * 100); }

}  // namespace

std::string fleet_text(const FleetPlan& plan) {
  const protocol::Plan& p = plan.input.plan;
  const StepSimulation& simulation = plan.simulation;
  const double step = to_seconds(simulation.step);
  std::string text =
      fmt::format("{}: {} layers in {} stages on {} of {} machines, {} microbatches of {} tokens a step\n\n",
                  plan.run.run.name, plan.run.model.layers, p.stages.size(), plan.machine_of.size(),
                  plan.fleet.machines.size(), p.microbatches, p.tokens_per_microbatch);
  text += fmt::format("  {:<6} {:<8} {:>8} {:>11} {:>10} {:>6} {:>6}   {}\n", "stage", "layers", "replicas",
                      "parameters", "memory", "busy", "idle", "idle for want of");
  for (std::uint32_t s = 0; s < p.stages.size(); ++s) {
    const auto& stage = p.stages[s];
    const StageWaits waits = waits_of(simulation, s);
    text += fmt::format(
        "  {:<6} {:<8} {:>8} {:>11} {:>10} {:>6} {:>6}   {}: forward {}, gradient {}, link {}, end of step {}\n", s,
        fmt::format("{}:{}", stage.first_layer, stage.end_layer), stage.replicas, stage.parameters,
        size_text(plan.memory_bytes[s]), percent(waits.busy), percent(waits.idle()), waits.cause(),
        percent(waits.forward), percent(waits.gradient), percent(waits.link), percent(waits.end));
  }
  text += fmt::format("\nstage × time (F forward, I input gradient, W weight gradient, · idle)\n{}\n",
                      step_grid(simulation, p));

  text += table_row("machine", "stage", "microbatches", "busy", "uplink", "memory");
  for (std::size_t w = 0; w < plan.machine_of.size(); ++w) {
    const auto& worker = simulation.workers[w];
    const auto& machine = plan.fleet.machines[plan.machine_of[w]];
    text += table_row(
        machine.name, worker_name(p, worker), fmt::format("{}", worker.microbatches),
        percent(to_seconds(worker.busy) / step), percent(to_seconds(worker.uplink_busy) / step),
        fmt::format("{} of {}", size_text(plan.memory_bytes[worker.stage.value]), size_text(machine.memory_bytes)));
  }
  for (const auto& spare : spare_machines(plan))
    text += table_row(plan.fleet.machines[spare.machine].name, "spare", "0", "", "", spare.reason);

  auto links = simulation.links;
  std::ranges::stable_sort(links, std::greater(), &LinkUse::bytes);
  if (!links.empty()) text += "\nbytes a step over each link, boundaries only\n";
  for (std::size_t i = 0; i < std::min(links.size(), kLinksShown); ++i)
    text += fmt::format("  {} → {}: {}\n", plan.fleet.machines[plan.machine_of[links[i].from]].name,
                        plan.fleet.machines[plan.machine_of[links[i].to]].name,
                        size_text(static_cast<double>(links[i].bytes)));
  if (links.size() > kLinksShown)
    text += fmt::format("  and {} more with at most {} each\n", links.size() - kLinksShown,
                        size_text(static_cast<double>(links[kLinksShown].bytes)));

  text += "\n" + sync_text(plan);
  text += fmt::format("predicted  {:.2f} s a step, {:.0f} tokens/s", step, plan.tokens_per_second());
  if (simulation.combination > Duration{})
    text += fmt::format("; replicas add their sums for {:.2f} s of it", to_seconds(simulation.combination));
  text += "\nwould help";
  const FleetAdvice changes = fleet_advice(plan);
  const auto& advice = changes.best;
  if (advice.empty()) text += " nothing that was tried: one more replica, a faster uplink, half the rank\n";
  for (std::size_t i = 0; i < advice.size(); ++i)
    text +=
        fmt::format("{} {}: {:.0f} tokens/s, {:+.1f} %\n", i == 0 ? "" : "          ", advice[i].change,
                    advice[i].tokens_per_second, (advice[i].tokens_per_second / plan.tokens_per_second() - 1) * 100);
  if (changes.untried > 0)
    text += fmt::format("           of {} changes {} were tried: the others would take too long to predict\n",
                        changes.tried + changes.untried, changes.tried);
  for (const auto& remark : plan.remarks) text += fmt::format("note       {}\n", remark);
  return text;
}

std::string fleet_json(const FleetPlan& plan) {
  const protocol::Plan& p = plan.input.plan;
  const StepSimulation& simulation = plan.simulation;
  const double step = to_seconds(simulation.step);
  const auto name = [&](std::uint32_t worker) { return plan.fleet.machines[plan.machine_of[worker]].name; };
  nlohmann::json j = {
      {"step_seconds", step},
      {"tokens_per_second", plan.tokens_per_second()},
      {"efficiency", simulation.efficiency},
      {"combination_seconds", to_seconds(simulation.combination)},
      {"sync", {{"mode", plan.run.sync.mode}, {"every", plan.run.sync.every}, {"exact_seconds", plan.sum_seconds}}},
      {"notes", plan.remarks},
      {"stages", nlohmann::json::array()},
      {"machines", nlohmann::json::array()},
      {"links", nlohmann::json::array()},
      {"paths", nlohmann::json::array()},
      {"changes", nlohmann::json::array()},
      {"config", nlohmann::json::parse(config::resolved_json(plan.run))}};
  for (std::uint32_t s = 0; s < p.stages.size(); ++s) {
    const StageWaits waits = waits_of(simulation, s);
    j["stages"].push_back({{"layers", {p.stages[s].first_layer, p.stages[s].end_layer}},
                           {"replicas", p.stages[s].replicas},
                           {"credits", p.stages[s].credits},
                           {"parameters", p.stages[s].parameters},
                           {"memory_bytes", plan.memory_bytes[s]},
                           {"busy_share", waits.busy},
                           {"idle_share", waits.idle()},
                           {"idle_cause", waits.cause()},
                           {"waits",
                            {{"forward", waits.forward},
                             {"gradient", waits.gradient},
                             {"link", waits.link},
                             {"end_of_step", waits.end}}}});
  }
  for (std::uint32_t w = 0; w < plan.machine_of.size(); ++w) {
    const auto& worker = simulation.workers[w];
    j["machines"].push_back({{"name", name(w)},
                             {"stage", worker.stage.value},
                             {"replica", worker.replica.value},
                             {"microbatches", worker.microbatches},
                             {"busy_seconds", to_seconds(worker.busy)},
                             {"uplink_bytes", worker.bytes_up},
                             {"uplink_seconds", to_seconds(worker.uplink_busy)},
                             {"memory_bytes", plan.fleet.machines[plan.machine_of[w]].memory_bytes}});
  }
  for (const auto& spare : spare_machines(plan))
    j["machines"].push_back(
        {{"name", plan.fleet.machines[spare.machine].name}, {"stage", nullptr}, {"reason", spare.reason}});
  for (const auto& link : simulation.links)
    j["links"].push_back({{"from", name(link.from)}, {"to", name(link.to)}, {"bytes", link.bytes}});
  for (const auto& path : simulation.paths) {
    nlohmann::json stages = nlohmann::json::array();
    for (const auto& holders : path) {
      nlohmann::json names = nlohmann::json::array();
      for (const std::uint32_t worker : holders) names.push_back(name(worker));
      stages.push_back(std::move(names));
    }
    j["paths"].push_back(std::move(stages));
  }
  const FleetAdvice changes = fleet_advice(plan);
  j["changes_tried"] = changes.tried;
  j["changes_untried"] = changes.untried;
  for (const auto& advice : changes.best)
    j["changes"].push_back({{"change", advice.change},
                            {"tokens_per_second", advice.tokens_per_second},
                            {"gain", advice.tokens_per_second / plan.tokens_per_second() - 1}});
  return j.dump(2) + "\n";
}

}  // namespace isthmus::planner
