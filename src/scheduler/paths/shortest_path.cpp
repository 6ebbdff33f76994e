#include "scheduler/paths/shortest_path.h"

#include <algorithm>
#include <queue>
#include <tuple>

namespace isthmus::paths {

ShortestPath::ShortestPath(const PathProblem& problem) : problem_(problem), stage_of_(problem.stage_of_nodes()) {
  const std::size_t nodes = problem.nodes.size();
  for (const std::uint32_t origin : problem.stages[0]) {
    auto& rest = rest_.emplace_back(problem.visits + 1, std::vector<Duration>(nodes, kNever));
    for (std::uint32_t node = 0; node < nodes; ++node)
      if (may_end(node)) rest[problem.visits][node] = finish(origin, node);
    for (std::uint32_t made = problem.visits - 1; made > 0; --made)
      for (std::uint32_t node = 0; node < nodes; ++node)
        for (const std::uint32_t next : successors(node))
          if (rest[made + 1][next] != kNever)
            rest[made][node] = std::min(rest[made][node], step(node, next) + rest[made + 1][next]);
  }
}

std::vector<std::uint32_t> ShortestPath::successors(std::uint32_t node) const {
  std::vector<std::uint32_t> nodes;
  const std::uint32_t first = stage_of_[node] + 1;
  for (std::uint32_t stage = first; stage < problem_.stages.size() && stage - first <= problem_.skips_in_a_row; ++stage)
    nodes.insert(nodes.end(), problem_.stages[stage].begin(), problem_.stages[stage].end());
  return nodes;
}

Duration ShortestPath::step(std::uint32_t from, std::uint32_t to) const {
  return problem_.between(from, to) + problem_.nodes[to].forward + problem_.nodes[to].backward +
         problem_.between(to, from);
}

Duration ShortestPath::finish(std::uint32_t origin, std::uint32_t last) const {
  if (problem_.end == PathEnd::kLastStage) return problem_.nodes[last].loss;
  return problem_.between(last, origin) + problem_.nodes[origin].loss + problem_.between(origin, last);
}

bool ShortestPath::may_end(std::uint32_t node) const {
  const std::uint32_t after = static_cast<std::uint32_t>(problem_.stages.size()) - 1 - stage_of_[node];
  return problem_.end == PathEnd::kLastStage ? after == 0 : after <= problem_.skips_in_a_row;
}

ShortestPath::Found ShortestPath::find(std::uint32_t origin, const std::vector<bool>& forbidden) const {
  const auto& rest =
      rest_[static_cast<std::size_t>(std::ranges::find(problem_.stages[0], origin) - problem_.stages[0].begin())];
  struct Reached {
    std::uint32_t node;
    std::uint32_t made;
    Duration spent;
    std::size_t before;
  };
  std::vector<Reached> reached;
  std::vector<bool> done((problem_.visits + 1) * problem_.nodes.size());
  using Entry = std::tuple<Duration, std::uint32_t, std::size_t>;  // bound, visits to go, index
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> open;
  const auto reach = [&](std::uint32_t node, std::uint32_t made, Duration spent, std::size_t before) {
    if (rest[made][node] == kNever) return;
    open.push({spent + rest[made][node], problem_.visits - made, reached.size()});
    reached.push_back({node, made, spent, before});
  };
  reach(origin, 1, problem_.nodes[origin].forward + problem_.nodes[origin].backward, 0);
  while (!open.empty()) {
    const auto [bound, to_go, at] = open.top();
    open.pop();
    const Reached from = reached[at];
    if (from.made == problem_.visits) {
      Found found{{}, bound};
      for (std::size_t i = at; found.nodes.size() < problem_.visits; i = reached[i].before)
        found.nodes.push_back(reached[i].node);
      std::ranges::reverse(found.nodes);
      return found;
    }
    if (done[from.made * problem_.nodes.size() + from.node]) continue;
    done[from.made * problem_.nodes.size() + from.node] = true;
    for (const std::uint32_t next : successors(from.node))
      if (!forbidden[next]) reach(next, from.made + 1, from.spent + step(from.node, next), at);
  }
  return {};
}

}  // namespace isthmus::paths
