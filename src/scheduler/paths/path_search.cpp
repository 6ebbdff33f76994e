#include "scheduler/paths/path_search.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <queue>
#include <set>
#include <tuple>

#include "scheduler/paths/path_coverage.h"
#include "scheduler/paths/path_heuristic.h"
#include "scheduler/paths/path_simulation.h"
#include "scheduler/paths/shortest_path.h"

namespace isthmus::paths {

namespace {

constexpr std::size_t kBranches = 3;
// Visits too many that weigh as much as the whole makespan.
constexpr int kExcessWeight = 256;

class Tree {
 public:
  Tree(const PathProblem& problem, const PathSearch& search)
      : problem_(problem),
        search_(search),
        shortest_(problem),
        simulation_(problem),
        stage_of_(problem.stage_of_nodes()),
        origins_(problem.origins()) {}

  // Best plans that meet every constraint, best first.
  std::vector<std::pair<Duration, PathChoice>> run(PathChoice start) {
    keep(simulation_.run(start), start);
    add(root());
    for (; expanded_ < search_.expansions && !open_.empty(); ++expanded_) {
      const auto at = std::get<2>(open_.top());
      open_.pop();
      expand(std::exchange(nodes_[at], nullptr));
    }
    return {best_.begin(), best_.end()};
  }
  std::uint32_t expanded() const { return expanded_; }

 private:
  struct Node {
    PathChoice choice;
    std::vector<std::vector<bool>> forbidden;  // by microbatch and node
    std::vector<std::uint32_t> coverage;       // by stage
    std::vector<std::uint32_t> load;           // by node
  };

  Node root() {
    Node node;
    node.coverage.resize(problem_.stages.size());
    node.load.resize(problem_.nodes.size());
    node.forbidden.assign(origins_.size(), std::vector<bool>(problem_.nodes.size()));
    node.choice.rank.resize(origins_.size());
    std::iota(node.choice.rank.begin(), node.choice.rank.end(), 0);
    for (std::uint32_t m = 0; m < origins_.size(); ++m) {
      node.choice.nodes.push_back(shortest_.find(origins_[m], node.forbidden[m]).nodes);
      count(node, node.choice.nodes.back(), 1);
    }
    return node;
  }

  void count(Node& node, const std::vector<std::uint32_t>& path, int change) const {
    for (const std::uint32_t visited : path) {
      node.coverage[stage_of_[visited]] += static_cast<std::uint32_t>(change);
      node.load[visited] += static_cast<std::uint32_t>(change);
    }
  }

  // Visits that each node should have at most.
  std::vector<std::uint32_t> shares(const Node& node) {
    std::vector<std::uint32_t> share(problem_.nodes.size());
    for (std::uint32_t stage = 1; stage < problem_.stages.size(); ++stage) {
      auto& dealt = dealt_[{stage, node.coverage[stage]}];
      if (dealt.empty()) dealt = deal_visits(problem_, stage, node.coverage[stage]);
      for (const std::uint32_t visited : dealt) ++share[visited];
    }
    // Which of equal replicas has the one more that does not divide is free.
    for (const auto& stage : problem_.stages) {
      std::uint32_t most = 0;
      for (const std::uint32_t visited : stage) most = std::max(most, share[visited]);
      for (const std::uint32_t visited : stage)
        if (share[visited] + 1 == most) share[visited] = most;
    }
    return share;
  }

  void add(Node node) {
    if (!seen_.insert({node.choice.nodes, node.choice.rank}).second) return;
    const Duration makespan = simulation_.run(node.choice);
    std::uint32_t excess = uneven_visits(problem_, node.coverage);
    if (excess == 0) {
      keep(makespan, node.choice);
      const auto share = shares(node);
      for (std::size_t v = 0; v < share.size(); ++v)
        if (stage_of_[v] != 0 && node.load[v] > share[v]) excess += node.load[v] - share[v];
    }
    open_.push({makespan + makespan * excess / kExcessWeight, excess, nodes_.size()});
    nodes_.push_back(std::make_unique<Node>(std::move(node)));
  }

  void keep(Duration makespan, const PathChoice& choice) {
    best_.insert({makespan, choice});
    if (best_.size() > search_.improved) best_.erase(std::prev(best_.end()));
  }

  // One child for each of the visitors of `closed` nodes that lose least by going elsewhere.
  void forbid(const Node& node, const std::vector<std::uint32_t>& visitors, const std::vector<std::uint32_t>& closed) {
    std::vector<std::tuple<Duration, std::uint32_t, std::vector<bool>, std::vector<std::uint32_t>>> detours;
    for (const std::uint32_t m : visitors) {
      auto forbidden = node.forbidden[m];
      const auto now = shortest_.find(origins_[m], forbidden);
      for (const std::uint32_t closed_node : closed) forbidden[closed_node] = true;
      auto found = shortest_.find(origins_[m], forbidden);
      if (!found.nodes.empty())
        detours.push_back({found.seconds - now.seconds, m, std::move(forbidden), std::move(found.nodes)});
    }
    std::ranges::sort(detours);
    if (detours.size() > kBranches) detours.resize(kBranches);
    for (auto& [longer, m, forbidden, path] : detours) {
      Node child = node;
      count(child, child.choice.nodes[m], -1);
      count(child, path, 1);
      child.forbidden[m] = std::move(forbidden);
      child.choice.nodes[m] = std::move(path);
      add(std::move(child));
    }
  }

  std::vector<std::uint32_t> visitors_of(const Node& node, const std::vector<std::uint32_t>& of) const {
    std::vector<std::uint32_t> visitors;
    for (std::uint32_t m = 0; m < origins_.size(); ++m)
      if (std::ranges::find_first_of(node.choice.nodes[m], of) != node.choice.nodes[m].end()) visitors.push_back(m);
    return visitors;
  }

  void expand(const std::unique_ptr<Node>& node) {
    const auto allowed = equal_coverage(problem_, node->coverage);
    std::optional<std::uint32_t> stage;
    for (std::uint32_t s = 1; s < allowed.size(); ++s)
      if (node->coverage[s] > allowed[s] &&
          (!stage || node->coverage[s] - allowed[s] > node->coverage[*stage] - allowed[*stage]))
        stage = s;
    if (stage) return forbid(*node, visitors_of(*node, problem_.stages[*stage]), problem_.stages[*stage]);

    const auto share = shares(*node);
    std::optional<std::uint32_t> crowded;
    for (std::uint32_t v = 0; v < share.size(); ++v)
      if (stage_of_[v] != 0 && node->load[v] > share[v] &&
          (!crowded || node->load[v] - share[v] > node->load[*crowded] - share[*crowded]))
        crowded = v;
    if (crowded) return forbid(*node, visitors_of(*node, {*crowded}), {*crowded});

    simulation_.run(node->choice);
    const auto chain = simulation_.critical();
    const auto longest = std::ranges::max_element(
        chain, {}, [](const auto& c) { return c.waited && c.microbatch != c.occupant ? c.wait : Duration{-1}; });
    if (!longest->waited || longest->microbatch == longest->occupant) return;
    if (stage_of_[longest->node] != 0) forbid(*node, {longest->microbatch, longest->occupant}, {longest->node});
    Node first = *node;
    std::swap(first.choice.rank[longest->microbatch], first.choice.rank[longest->occupant]);
    add(std::move(first));
  }

  const PathProblem& problem_;
  const PathSearch& search_;
  const ShortestPath shortest_;
  PathSimulation simulation_;
  const std::vector<std::uint32_t> stage_of_;
  const std::vector<std::uint32_t> origins_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<std::uint32_t>> dealt_;
  std::uint32_t expanded_ = 0;
  std::vector<std::unique_ptr<Node>> nodes_;                       // null: expanded
  using Entry = std::tuple<Duration, std::uint32_t, std::size_t>;  // key, excess, node
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> open_;
  struct Shorter {
    bool operator()(const std::pair<Duration, PathChoice>& a, const std::pair<Duration, PathChoice>& b) const {
      return std::tie(a.first, a.second.nodes, a.second.rank) < std::tie(b.first, b.second.nodes, b.second.rank);
    }
  };
  std::set<std::pair<Duration, PathChoice>, Shorter> best_;
  std::set<std::pair<std::vector<std::vector<std::uint32_t>>, std::vector<std::uint32_t>>> seen_;
};

}  // namespace

Result<PathSearchResult> search_paths(const PathProblem& problem, const PathSearch& search) {
  auto start = match_paths(problem);
  if (!start) return tl::unexpected(start.error());
  if (start->nodes.empty()) return PathSearchResult{std::move(*start), {}, 0};
  Tree tree(problem, search);
  const auto found = tree.run(std::move(*start));
  PathSearchResult result{found.front().second, found.front().first, tree.expanded()};
  PathImprovement each = search.improvement;
  PathSimulation simulation(problem);
  Duration least = result.tree;
  for (const auto& [makespan, choice] : found) {
    auto improved = improve_paths(problem, choice, each);
    ++each.seed;
    if (const Duration now = simulation.run(improved); now < least) {
      least = now;
      result.choice = std::move(improved);
    }
  }
  return result;
}

}  // namespace isthmus::paths
