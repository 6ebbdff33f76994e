#include "scheduler/paths/path_simulation.h"

#include <algorithm>
#include <functional>

namespace isthmus::paths {

PathSimulation::PathSimulation(const PathProblem& problem)
    : problem_(problem), visits_(problem.visits), width_(2 * problem.visits + 1), nodes_(problem.nodes.size()) {}

Duration PathSimulation::duration(std::uint32_t operation) const {
  const auto& node = problem_.nodes[operations_[operation].node];
  const std::uint32_t step = step_of(operation);
  return step < visits_ ? node.forward : step == visits_ ? node.loss : node.backward;
}

void PathSimulation::touch(std::uint32_t node) {
  if (nodes_[node].touched) return;
  nodes_[node].touched = true;
  touched_.push_back(node);
}

void PathSimulation::arrive(std::uint32_t operation, Time at) {
  Operation& arrived = operations_[operation];
  arrived.ready = at;
  nodes_[arrived.node].ready.push_back(operation);
  touch(arrived.node);
}

void PathSimulation::finish(std::uint32_t operation, Time at) {
  const std::uint32_t node = operations_[operation].node;
  nodes_[node].running = kNone;
  nodes_[node].finished = operation;
  const std::uint32_t step = step_of(operation);
  if (step > visits_) --nodes_[node].in_flight;
  touch(node);
  if (step + 1 < width_)
    events_.push({at + problem_.between(node, operations_[operation + 1].node), 2 * (operation + 1)});
}

void PathSimulation::dispatch(std::uint32_t node, Time now) {
  NodeState& state = nodes_[node];
  state.touched = false;
  if (state.running != kNone || state.ready.empty()) return;
  const auto urgency = [&](std::uint32_t o) { return std::pair(step_of(o) < visits_, (*rank_)[microbatch_of(o)]); };
  const bool full = state.in_flight >= problem_.nodes[node].memory;
  auto best = state.ready.end();
  for (auto at = state.ready.begin(); at != state.ready.end(); ++at)
    if (!(full && step_of(*at) < visits_) && (best == state.ready.end() || urgency(*at) < urgency(*best))) best = at;
  if (best == state.ready.end()) return;
  const std::uint32_t operation = *best;
  *best = state.ready.back();
  state.ready.pop_back();
  if (step_of(operation) < visits_) ++state.in_flight;
  state.running = operation;
  operations_[operation].start = now;
  operations_[operation].after = now > operations_[operation].ready ? state.finished : kNone;
  events_.push({now + duration(operation), 2 * operation + 1});
}

Duration PathSimulation::run(const PathChoice& choice) {
  rank_ = &choice.rank;
  const auto count = static_cast<std::uint32_t>(choice.nodes.size());
  operations_.resize(std::size_t{count} * width_);
  for (auto& state : nodes_) {
    state.running = state.finished = kNone;
    state.in_flight = 0;
  }
  for (std::uint32_t m = 0; m < count; ++m) {
    const auto& path = choice.nodes[m];
    Operation* chain = &operations_[std::size_t{m} * width_];
    for (std::uint32_t i = 0; i < visits_; ++i) chain[i].node = chain[width_ - 1 - i].node = path[i];
    chain[visits_].node = problem_.end == PathEnd::kOrigin ? path.front() : path.back();
    events_.push({Time{}, 2 * m * width_});
  }
  Time now{};
  while (!events_.empty()) {
    now = events_.top().first;
    // Everything that happens now is known before anyone chooses.
    while (!events_.empty() && events_.top().first == now) {
      const std::uint32_t event = events_.top().second;
      events_.pop();
      if (event % 2)
        finish(event / 2, now);
      else
        arrive(event / 2, now);
    }
    for (const std::uint32_t node : touched_) dispatch(node, now);
    touched_.clear();
  }
  return now;
}

double PathSimulation::mean_end_seconds() const {
  double sum = 0;
  for (std::uint32_t m = 0; m < microbatches(); ++m) {
    const std::uint32_t last = (m + 1) * width_ - 1;
    sum += to_seconds(operations_[last].start + duration(last));
  }
  return sum / std::max(microbatches(), 1u);
}

PathPlan PathSimulation::plan() const {
  PathPlan plan;
  plan.coverage.resize(problem_.stages.size());
  const auto stage_of = problem_.stage_of_nodes();
  for (std::uint32_t m = 0; m < microbatches(); ++m) {
    const Operation* chain = &operations_[std::size_t{m} * width_];
    auto& path = plan.paths.emplace_back();
    for (std::uint32_t i = 0; i < visits_; ++i) {
      path.visits.push_back({chain[i].node, chain[i].start, chain[width_ - 1 - i].start});
      ++plan.coverage[stage_of[chain[i].node]];
    }
    path.loss = chain[visits_].start;
    plan.makespan =
        std::max(plan.makespan, chain[width_ - 1].start + problem_.nodes[path.visits.front().node].backward);
  }
  return plan;
}

std::vector<PathSimulation::Critical> PathSimulation::critical() const {
  std::uint32_t at = width_ - 1;
  const auto end = [&](std::uint32_t operation) { return operations_[operation].start + duration(operation); };
  for (std::uint32_t m = 0; m < microbatches(); ++m)
    if (end((m + 1) * width_ - 1) > end(at)) at = (m + 1) * width_ - 1;
  std::vector<Critical> chain;
  for (;;) {
    const Operation& operation = operations_[at];
    const bool waited = operation.after != kNone;
    chain.push_back({microbatch_of(at), operation.node, waited, waited ? microbatch_of(operation.after) : 0,
                     operation.start - operation.ready});
    if (!waited && step_of(at) == 0) return chain;
    at = waited ? operation.after : at - 1;
  }
}

}  // namespace isthmus::paths
