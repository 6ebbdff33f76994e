#include "scheduler/planner/plan_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "config/load_run.h"
#include "config/resolve_run.h"
#include "scheduler/planner/make_plan.h"
#include "scheduler/planner/step_grid.h"
#include "spec/stage_costs.h"
#include "spec/stage_memory.h"

namespace isthmus::planner {

namespace {

spec::StageMemory memory_of(const spec::RunConfig& run, const protocol::Plan& plan, const protocol::StagePlan& stage,
                            const WorkerSimulation& most, std::optional<bool> bf16) {
  const spec::StageUse use{most.in_flight_max, most.held_max - most.in_flight_max, stage.replicas, false};
  const auto boundary = static_cast<double>(plan.forward_bytes + plan.backward_bytes + plan.token_bytes);
  if (!bf16 || run.train.precision != "bf16")
    return spec::stage_memory(run, stage.first_layer, stage.end_layer, use, boundary);
  return spec::stage_memory(run, stage.first_layer, stage.end_layer, use, boundary, *bf16);
}

// Of a stage: its busiest replica in each respect.
WorkerSimulation most_of(const StepSimulation& simulation, StageId stage) {
  WorkerSimulation most{stage, ReplicaId(0)};
  for (const auto& worker : simulation.workers) {
    if (worker.stage != stage) continue;
    most.microbatches = std::max(most.microbatches, worker.microbatches);
    most.in_flight_max = std::max(most.in_flight_max, worker.in_flight_max);
    most.held_max = std::max(most.held_max, worker.held_max);
    most.busy = std::max(most.busy, worker.busy);
    most.bytes_up = std::max(most.bytes_up, worker.bytes_up);
    most.uplink_busy = std::max(most.uplink_busy, worker.uplink_busy);
  }
  return most;
}

struct Figures {
  protocol::Plan plan;
  StepSimulationInput input;
  StepSimulation simulation;
  double tokens_per_second = 0;
  double bytes_per_token_hop = 0;  // both directions
  double dense_ratio = 0;
  std::string limit;
};

Figures figures_of(const spec::RunConfig& run, const PlanTextOptions& options) {
  Figures f{make_plan(run), simulation_input(run, options), {}, 0, 0, 0, {}};
  f.simulation = simulate_step(f.input);
  f.tokens_per_second = double(f.plan.tokens_per_microbatch) * f.plan.microbatches / to_seconds(f.simulation.step);
  f.bytes_per_token_hop =
      double(f.plan.forward_bytes + f.plan.backward_bytes + f.plan.token_bytes) / f.plan.tokens_per_microbatch;
  f.dense_ratio =
      4.0 * run.model.hidden / (double(f.plan.forward_bytes + f.plan.backward_bytes) / f.plan.tokens_per_microbatch);
  const auto& busiest = *std::ranges::max_element(f.simulation.workers, {}, &WorkerSimulation::busy);
  const auto& sender = *std::ranges::max_element(f.simulation.workers, {}, &WorkerSimulation::uplink_busy);
  const double step = to_seconds(f.simulation.step);
  const double device_share = to_seconds(busiest.busy) / step, link_share = to_seconds(sender.uplink_busy) / step;
  if (link_share > 0.85)
    f.limit = fmt::format("the uplink of stage {}, {:.0f} % busy: a smaller rank or a faster link would help",
                          worker_name(f.plan, sender), link_share * 100);
  else if (device_share > 0.85)
    f.limit = fmt::format("the device of stage {}, {:.0f} % busy: fewer layers there or a faster device would help",
                          worker_name(f.plan, busiest), device_share * 100);
  else
    f.limit = "latency: filling and draining the pipeline; more microbatches per step would help";
  return f;
}

// The stage whose replicas would take longest to add up their gradients.
const spec::RunConfig::Stage& slowest_sum(const spec::RunConfig& run) {
  return *std::ranges::max_element(run.pipeline.stage, {},
                                   [&](const auto& stage) { return config::exact_sync_seconds(run, stage); });
}

// How replicas agree, and why so; empty if no stage has any.
std::string sync_text(const spec::RunConfig& run, const protocol::Plan& plan) {
  if (std::ranges::all_of(run.pipeline.stage, [](const auto& s) { return s.replicas == 1; })) return "";
  const auto& slowest = slowest_sum(run);
  const double seconds = config::exact_sync_seconds(run, slowest);
  const auto sum =
      fmt::format("the sum of gradients would take the uplink of a replica of layers {}:{} {:.2g} s of every step",
                  slowest.first_layer, slowest.end_layer, seconds);
  if (plan.sync_every == 0)
    return fmt::format("replicas   exact: every step they add up their gradients; {:.2g} s of an uplink\n", seconds);
  double bytes = 0;
  for (const auto& stage : plan.stages) {
    double update = 0;
    for (const auto size : stage.update_bytes) update += static_cast<double>(size);
    bytes = std::max(bytes, update);
  }
  return fmt::format("replicas   {} every {} steps, an update of {}: {}\n", run.sync.mode, plan.sync_every,
                     size_text(bytes), sum);
}

// Of all stages, as the table has them.
std::uint64_t parameters_in_all(const spec::RunConfig& run, const protocol::Plan& plan) {
  std::uint64_t parameters = 0;
  for (const auto& stage : plan.stages) parameters += parameters_of(run, stage.first_layer, stage.end_layer);
  return parameters;
}

// A checkpoint has every stage once; a worker's journal is on its own disk.
double checkpoint_bytes(const protocol::Plan& plan) {
  double bytes = 0;
  for (const auto& stage : plan.stages) bytes += static_cast<double>(stage.state_bytes);
  return bytes;
}

std::string total_text(const spec::RunConfig& run, const protocol::Plan& plan) {
  if (run.emulated.devices) return fmt::format("  total: {} parameters\n", parameters_in_all(run, plan));
  return fmt::format(
      "  total: {} parameters; on disk {} a checkpoint, {} are kept, and {} of journal a worker at most\n",
      parameters_in_all(run, plan), size_text(checkpoint_bytes(plan)), run.checkpoint.keep,
      size_text(static_cast<double>(run.host.journal_mb << 20)));
}

}  // namespace

StepSimulationInput simulation_input(const spec::RunConfig& run, const PlanTextOptions& options) {
  StepSimulationInput input;
  input.plan = make_plan(run);
  input.link = link_costs(run.link);
  std::uint32_t peer = 0;
  for (const auto& stage : input.plan.stages) {
    protocol::OperationCosts costs;
    if (run.emulated.devices) {
      costs = {seconds(run.emulated.forward_ms * 1e-3), seconds(run.emulated.input_gradient_ms * 1e-3),
               seconds(run.emulated.weight_gradient_ms * 1e-3)};
    } else {
      const double forward = spec::forward_operations(run, stage.first_layer, stage.end_layer) *
                             input.plan.tokens_per_microbatch / (options.gflops * 1e9);
      costs = {seconds(forward), seconds(forward), seconds(forward)};
    }
    for (std::uint32_t r = 0; r < stage.replicas; ++r)
      input.costs.push_back(
          ++peer == run.emulated.slow_peer && run.emulated.slow_step == 0 ? costs * run.emulated.slow_factor : costs);
  }
  return input;
}

std::string plan_text(const spec::RunConfig& run, const PlanTextOptions& options) {
  const Figures f = figures_of(run, options);
  const bool emulated = run.emulated.devices;
  std::string text = fmt::format("{}: {} layers in {} stages, {} microbatches of {} tokens a step, {} Mb/s, {} ms\n\n",
                                 run.run.name, run.model.layers, f.plan.stages.size(), f.plan.microbatches,
                                 f.plan.tokens_per_microbatch, run.link.bandwidth_mbps, run.link.latency_ms);
  text += fmt::format("  {:<6} {:<8} {:>8} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "stage",
                      "layers", "replicas", "parameters", "weights", "optimizer", "gradients", "kept", "working",
                      "memory", "up a step");
  for (std::size_t s = 0; s < f.plan.stages.size(); ++s) {
    const auto& stage = f.plan.stages[s];
    const auto most = most_of(f.simulation, StageId(static_cast<std::uint32_t>(s)));
    const auto memory = memory_of(run, f.plan, stage, most, options.bf16);
    text += fmt::format("  {:<6} {:<8} {:>8} {:>11.0f} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n", s,
                        fmt::format("{}:{}", stage.first_layer, stage.end_layer), stage.replicas,
                        static_cast<double>(parameters_of(run, stage.first_layer, stage.end_layer)),
                        size_text(memory.weights), size_text(memory.optimizer), size_text(memory.gradients),
                        size_text(memory.kept), size_text(memory.working), size_text(memory.total()),
                        size_text(double(most.bytes_up)));
  }
  const auto of_all = memory_of(run, f.plan, f.plan.stages.front(), most_of(f.simulation, StageId(0)), options.bf16);
  text += fmt::format("  memory is a worker's peak, with {} for the program and the copy that a checkpoint is\n",
                      size_text(of_all.program));
  text += total_text(run, f.plan);
  text += fmt::format("\nstage × time (F forward, I input gradient, W weight gradient, · idle)\n{}\n",
                      step_grid(f.simulation, f.plan));
  const auto& c = f.input.costs.front();
  text += fmt::format(
      "compute    F {}, I {}, W {} a microbatch at stage 0 ({})\n", time_text(to_seconds(c.forward)),
      time_text(to_seconds(c.input_gradient)), time_text(to_seconds(c.weight_gradient)),
      emulated ? "as [emulated] says" : fmt::format("an estimate at {} GFLOP/s; --gflops sets it", options.gflops));
  if (f.plan.stages.size() > 1)
    text += fmt::format("boundary   {:.1f} B per token and hop there and back, {:.1f} times less than dense bf16\n",
                        f.bytes_per_token_hop, f.dense_ratio);
  text += sync_text(run, f.plan);
  text += fmt::format("predicted  {} a step, {:.0f} tokens/s, efficiency {:.3f}\n",
                      time_text(to_seconds(f.simulation.step)), f.tokens_per_second, f.simulation.efficiency);
  text += fmt::format("limit      {}\n", f.limit);
  return text;
}

std::string plan_json(const spec::RunConfig& run, const PlanTextOptions& options) {
  const Figures f = figures_of(run, options);
  nlohmann::json j = {{"step_seconds", to_seconds(f.simulation.step)},
                      {"tokens_per_second", f.tokens_per_second},
                      {"efficiency", f.simulation.efficiency},
                      {"wire_bytes_per_token_hop", f.bytes_per_token_hop},
                      {"dense_ratio", f.dense_ratio},
                      {"limit", f.limit},
                      {"parameters", parameters_in_all(run, f.plan)},
                      {"checkpoint_bytes", checkpoint_bytes(f.plan)},
                      {"sync",
                       {{"mode", run.sync.mode},
                        {"every", run.sync.every},
                        {"exact_seconds", config::exact_sync_seconds(run, slowest_sum(run))}}},
                      {"compute_times", run.emulated.devices ? "given" : "estimated"},
                      {"stages", nlohmann::json::array()},
                      {"config", nlohmann::json::parse(config::resolved_json(run))}};
  for (std::size_t s = 0; s < f.plan.stages.size(); ++s) {
    const auto& stage = f.plan.stages[s];
    const auto most = most_of(f.simulation, StageId(static_cast<std::uint32_t>(s)));
    const auto memory = memory_of(run, f.plan, stage, most, options.bf16);
    j["stages"].push_back({{"layers", {stage.first_layer, stage.end_layer}},
                           {"replicas", stage.replicas},
                           {"credits", stage.credits},
                           {"parameters", parameters_of(run, stage.first_layer, stage.end_layer)},
                           {"memory_bytes", memory.total()},
                           {"memory",
                            {{"weights", memory.weights},
                             {"optimizer", memory.optimizer},
                             {"gradients", memory.gradients},
                             {"kept", memory.kept},
                             {"working", memory.working},
                             {"checkpoint", memory.checkpoint},
                             {"program", memory.program}}},
                           {"busy_seconds", to_seconds(most.busy)},
                           {"uplink_bytes", most.bytes_up},
                           {"uplink_seconds", to_seconds(most.uplink_busy)}});
  }
  for (const auto& worker : f.simulation.workers)
    j["workers"].push_back({{"stage", worker.stage.value},
                            {"replica", worker.replica.value},
                            {"microbatches", worker.microbatches},
                            {"busy_seconds", to_seconds(worker.busy)},
                            {"uplink_seconds", to_seconds(worker.uplink_busy)}});
  return j.dump(2) + "\n";
}

}  // namespace isthmus::planner
