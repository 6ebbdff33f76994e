#include "scheduler/paths/path_checks.h"

#include <algorithm>
#include <utility>

namespace isthmus::paths {

namespace {

Status check_path(const PathProblem& problem, const std::vector<std::uint32_t>& stage_of, std::size_t m,
                  std::uint32_t origin, const PathPlan::Path& path) {
  if (path.visits.size() != problem.visits)
    return fail("microbatch {} visits {} stages, expected {}", m, path.visits.size(), problem.visits);
  for (const auto& visit : path.visits)
    if (visit.node >= problem.nodes.size())
      return fail("microbatch {} visits node {}, expected one below {}", m, visit.node, problem.nodes.size());
  if (stage_of[path.visits.front().node] != 0) return fail("microbatch {} skips the first stage", m);
  if (path.visits.front().node != origin)
    return fail("microbatch {} begins at node {}, expected {}", m, path.visits.front().node, origin);
  const auto stages = static_cast<std::uint32_t>(problem.stages.size());
  std::uint32_t before = 0;
  for (std::size_t i = 1; i <= path.visits.size(); ++i) {
    const std::uint32_t stage = i < path.visits.size() ? stage_of[path.visits[i].node] : stages;
    if (stage <= before)
      return fail("microbatch {} goes from stage {} to stage {}, expected a later one", m, before, stage);
    if (stage - before - 1 > problem.skips_in_a_row)
      return fail("microbatch {} skips {} stages in a row after stage {}, expected at most {}", m, stage - before - 1,
                  before, problem.skips_in_a_row);
    if (i < path.visits.size()) before = stage;
  }
  if (problem.end == PathEnd::kLastStage && before + 1 != stages) return fail("microbatch {} skips the last stage", m);
  return {};
}

// Every operation starts when what it needs has been sent to it, or later.
Status check_times(const PathProblem& problem, std::size_t m, const PathPlan::Path& path) {
  const std::uint32_t first = path.visits.front().node, last = path.visits.back().node;
  const std::uint32_t head = problem.end == PathEnd::kOrigin ? first : last;
  Time ready{};
  std::uint32_t at = first;
  const auto runs = [&](std::uint32_t node, Time start, Duration takes) {
    const Time earliest = ready + problem.between(at, node);
    const bool in_time = start >= earliest;
    ready = start + takes;
    at = node;
    return in_time;
  };
  const auto early = [&](const char* what, std::uint32_t node) {
    return fail("microbatch {} starts its {} on node {} before its input is there", m, what, node);
  };
  for (const auto& visit : path.visits)
    if (!runs(visit.node, visit.forward, problem.nodes[visit.node].forward)) return early("forward", visit.node);
  if (!runs(head, path.loss, problem.nodes[head].loss)) return early("loss", head);
  for (auto visit = path.visits.rbegin(); visit != path.visits.rend(); ++visit)
    if (!runs(visit->node, visit->backward, problem.nodes[visit->node].backward)) return early("backward", visit->node);
  return {};
}

Status check_nodes(const PathProblem& problem, const PathPlan& plan) {
  std::vector<std::vector<std::pair<Time, Time>>> busy(problem.nodes.size());
  std::vector<std::vector<std::pair<Time, int>>> held(problem.nodes.size());
  for (const auto& path : plan.paths) {
    for (const auto& visit : path.visits) {
      const auto& node = problem.nodes[visit.node];
      busy[visit.node].push_back({visit.forward, visit.forward + node.forward});
      busy[visit.node].push_back({visit.backward, visit.backward + node.backward});
      held[visit.node].push_back({visit.forward, 1});
      held[visit.node].push_back({visit.backward + node.backward, -1});
    }
    const std::uint32_t head = problem.end == PathEnd::kOrigin ? path.visits.front().node : path.visits.back().node;
    busy[head].push_back({path.loss, path.loss + problem.nodes[head].loss});
  }
  for (std::size_t node = 0; node < problem.nodes.size(); ++node) {
    std::ranges::sort(busy[node]);
    for (std::size_t i = 1; i < busy[node].size(); ++i)
      if (busy[node][i].first < busy[node][i - 1].second)
        return fail("node {} does two things at once at {:.3f} s", node, to_seconds(busy[node][i].first));
    std::ranges::sort(held[node]);  // what ends goes before what begins at the same time
    int in_flight = 0;
    for (const auto& [time, change] : held[node])
      if ((in_flight += change) > static_cast<int>(problem.nodes[node].memory))
        return fail("node {} holds {} microbatches at {:.3f} s, expected at most {}", node, in_flight, to_seconds(time),
                    problem.nodes[node].memory);
  }
  return {};
}

}  // namespace

Status check_problem(const PathProblem& problem) {
  const std::size_t stages = problem.stages.size(), nodes = problem.nodes.size();
  if (stages == 0) return fail("there are no stages, expected one or more");
  if (problem.transfer.size() != nodes * nodes)
    return fail("there are {} transfer times for {} nodes, expected {}", problem.transfer.size(), nodes, nodes * nodes);
  if (problem.microbatches.size() != problem.stages[0].size())
    return fail("there are microbatches for {} origins, expected {}, the nodes of the first stage",
                problem.microbatches.size(), problem.stages[0].size());
  std::vector<std::uint32_t> seen(nodes);
  for (std::size_t s = 0; s < stages; ++s) {
    if (problem.stages[s].empty()) return fail("stage {} has no node, expected one or more", s);
    for (const std::uint32_t node : problem.stages[s]) {
      if (node >= nodes) return fail("stage {} has node {}, expected one below {}", s, node, nodes);
      if (++seen[node] > 1) return fail("node {} serves two stages, expected one", node);
    }
  }
  for (std::size_t node = 0; node < nodes; ++node) {
    if (seen[node] == 0) return fail("node {} serves no stage, expected one", node);
    if (problem.nodes[node].memory == 0)
      return fail("memory: node {} can hold no microbatch, expected one or more", node);
    const auto& costs = problem.nodes[node];
    if (costs.forward < Duration{} || costs.backward < Duration{} || costs.loss < Duration{})
      return fail("node {} has a negative time", node);
    for (std::size_t to = 0; to < nodes; ++to)
      if (problem.transfer[node * nodes + to] < Duration{})
        return fail("the transfer from node {} to {} has a negative time", node, to);
    if (problem.transfer[node * nodes + node] != Duration{})
      return fail("node {} needs time to send to itself, expected none", node);
  }
  // The stages that a path of `visits` must at least spread over: as far apart as the limit of skips allows.
  const std::uint64_t must = problem.end == PathEnd::kLastStage && stages > 1 ? 2 : 1;
  if (problem.visits < must || problem.visits > stages)
    return fail("visits: a path visits {} stages, expected {} to {}", problem.visits, must, stages);
  const std::uint64_t hops = problem.end == PathEnd::kLastStage ? problem.visits - 1 : problem.visits;
  if (stages - problem.visits > hops * problem.skips_in_a_row)
    return fail(
        "skips in a row: with at most {} in a row a path of {} visits leaves out at most {} stages, expected {}",
        problem.skips_in_a_row, problem.visits, hops * problem.skips_in_a_row, stages - problem.visits);
  return {};
}

Status check_plan(const PathProblem& problem, const PathPlan& plan) {
  const auto origins = problem.origins();
  const auto stage_of = problem.stage_of_nodes();
  if (plan.paths.size() != origins.size())
    return fail("there are {} paths, expected {}, one for each microbatch", plan.paths.size(), origins.size());
  std::vector<std::uint32_t> coverage(problem.stages.size());
  Duration makespan{};
  for (std::size_t m = 0; m < plan.paths.size(); ++m) {
    const auto& path = plan.paths[m];
    if (auto sound = check_path(problem, stage_of, m, origins[m], path); !sound) return sound;
    if (auto sound = check_times(problem, m, path); !sound) return sound;
    for (const auto& visit : path.visits) ++coverage[stage_of[visit.node]];
    makespan = std::max(makespan, path.visits.front().backward + problem.nodes[path.visits.front().node].backward);
  }
  for (std::uint32_t a = 1; a < problem.end_of_skippable(); ++a)
    for (std::uint32_t b = 1; b < problem.end_of_skippable(); ++b)
      if (coverage[a] > coverage[b] + 1)
        return fail("coverage: stage {} is visited {} times, stage {} {} times, expected equally often", a, coverage[a],
                    b, coverage[b]);
  if (auto sound = check_nodes(problem, plan); !sound) return sound;
  if (plan.coverage != coverage) return fail("the plan states another coverage than its paths have");
  if (plan.makespan != makespan)
    return fail("the plan states a makespan of {:.3f} s, its last backward ends at {:.3f} s", to_seconds(plan.makespan),
                to_seconds(makespan));
  return {};
}

}  // namespace isthmus::paths
