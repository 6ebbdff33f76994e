#include "scheduler/planner/place_by_flow.h"

#include <algorithm>
#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/successive_shortest_path_nonnegative_weights.hpp>
#include <cmath>
#include <map>
#include <numeric>
#include <queue>
#include <tuple>
#include <vector>

namespace isthmus::planner {

namespace {

constexpr std::size_t kEdgesMax = 10'000;  // one machine a group up to here
constexpr double kUnits = 1e6;             // the fleet's speed
constexpr double kCostUnits = 1000;        // all of a machine's speed lost

using Traits = boost::adjacency_list_traits<boost::vecS, boost::vecS, boost::directedS>;
// Costs are whole numbers as doubles: Boost adds two distances to a place that cannot be reached, the largest number
// each.
using Graph = boost::adjacency_list<
    boost::vecS, boost::vecS, boost::directedS, boost::no_property,
    boost::property<boost::edge_capacity_t, long,
                    boost::property<boost::edge_residual_capacity_t, long,
                                    boost::property<boost::edge_reverse_t, Traits::edge_descriptor,
                                                    boost::property<boost::edge_weight_t, double>>>>>;

Traits::edge_descriptor add_edge(Graph& graph, std::size_t from, std::size_t to, long capacity, long cost) {
  const auto edge = boost::add_edge(from, to, graph).first, back = boost::add_edge(to, from, graph).first;
  boost::put(boost::edge_capacity, graph, edge, capacity);
  boost::put(boost::edge_capacity, graph, back, 0);
  boost::put(boost::edge_weight, graph, edge, static_cast<double>(cost));
  boost::put(boost::edge_weight, graph, back, -static_cast<double>(cost));
  boost::put(boost::edge_reverse, graph, edge, back);
  boost::put(boost::edge_reverse, graph, back, edge);
  return edge;
}

struct Group {
  std::vector<std::uint32_t> machines;  // neighbours next to each other
  double speed = 0;                     // operations per second at a middle stage, what its connection costs taken off
  long units = 0;
};

class Flow {
 public:
  explicit Flow(const PlacementProblem& problem)
      : problem_(problem), stages_(static_cast<std::uint32_t>(problem.stages.size())) {}

  std::optional<Placement> run() {
    make_groups();
    send();
    place_the_rest();
    for (std::uint32_t s = 0; s < stages_; ++s)
      if (size_[s] == 0 && !fill(s)) return std::nullopt;
    return placement_;
  }

 private:
  const FleetMachine& machine(std::uint32_t m) const { return problem_.fleet->machines[m]; }
  double speed_at(std::uint32_t m, std::uint32_t s) const {
    return PlacementEstimate::rate(problem_, m, s) * problem_.stages[s].operations;
  }
  bool takes(std::uint32_t s, std::uint32_t m) const { return size_[s] < problem_.replicas_max && problem_.fits(m, s); }

  void place(std::uint32_t m, std::uint32_t stage) {
    if (placement_[m] != kSpare) {
      --size_[placement_[m]];
      speed_[placement_[m]] -= speed_at(m, placement_[m]);
    }
    placement_[m] = stage;
    ++size_[stage];
    speed_[stage] += speed_at(m, stage);
  }

  void make_groups() {
    const auto machines = static_cast<std::uint32_t>(problem_.fleet->machines.size());
    const bool alone = std::size_t{machines} * stages_ <= kEdgesMax;
    placement_.assign(machines, kSpare);
    size_.assign(stages_, 0);
    speed_.assign(stages_, 0);
    std::map<std::tuple<double, std::uint32_t, double, double>, std::size_t> known;
    for (std::uint32_t m = 0; m < machines; ++m) {
      std::uint32_t fitting = 0;
      for (std::uint32_t s = 0; s < stages_; ++s) fitting += problem_.fits(m, s);
      const double speed = 1 / machine(m).seconds_per_operation();
      const std::tuple key(std::floor(std::log(speed) / std::log(1.3)), fitting, std::floor(std::log2(machine(m).up)),
                           std::floor(std::log2(machine(m).down)));
      const std::size_t group = alone ? m : known.emplace(key, known.size()).first->second;
      if (group == groups_.size()) groups_.emplace_back();
      groups_[group].machines.push_back(m);
      groups_[group].speed += speed_at(m, stages_ / 2);
    }
    for (auto& group : groups_)
      std::ranges::stable_sort(group.machines, {}, [&](std::uint32_t m) { return machine(m).site; });
  }

  void send() {
    double speed = 0, work = 0;
    for (const auto& group : groups_) speed += group.speed;
    for (const auto& stage : problem_.stages) work += stage.operations;
    const std::size_t source = groups_.size() + stages_, sink = source + 1;
    Graph graph(sink + 1);
    std::vector<std::vector<std::pair<std::uint32_t, Traits::edge_descriptor>>> edges(groups_.size());
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      Group& group = groups_[g];
      group.units = std::max(1L, std::lround(kUnits * group.speed / speed));
      add_edge(graph, source, g, group.units, 0);
      const std::uint32_t one = group.machines.front();
      for (std::uint32_t s = 0; s < stages_; ++s) {
        if (!problem_.fits(one, s)) continue;
        const double used = speed_at(one, s) * machine(one).seconds_per_operation();
        edges[g].emplace_back(
            s, add_edge(graph, g, groups_.size() + s, group.units, std::lround(kCostUnits * (1 - used))));
      }
    }
    for (std::uint32_t s = 0; s < stages_; ++s)
      add_edge(graph, groups_.size() + s, sink, std::lround(kUnits * problem_.stages[s].operations / work), 0);
    boost::successive_shortest_path_nonnegative_weights(graph, source, sink);
    const auto capacity = boost::get(boost::edge_capacity, graph);
    const auto residual = boost::get(boost::edge_residual_capacity, graph);
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      std::vector<std::pair<std::uint32_t, double>> shares;  // stage, machines
      for (const auto& [s, edge] : edges[g])
        if (const long sent = capacity[edge] - residual[edge]; sent > 0)
          shares.emplace_back(s, static_cast<double>(sent) * static_cast<double>(groups_[g].machines.size()) /
                                     static_cast<double>(groups_[g].units));
      round(groups_[g], shares);
    }
  }

  // Whole machines; the largest remainders get what is left.
  void round(const Group& group, std::vector<std::pair<std::uint32_t, double>>& shares) {
    double all = 0;
    std::vector<std::uint32_t> whole;
    for (const auto& [s, share] : shares) {
      all += share;
      whole.push_back(static_cast<std::uint32_t>(share + 1e-9));
    }
    std::vector<std::size_t> order(shares.size());
    std::iota(order.begin(), order.end(), 0u);
    std::ranges::stable_sort(order, std::greater(), [&](std::size_t i) { return shares[i].second - whole[i]; });
    auto left = static_cast<std::uint32_t>(std::min<double>(std::round(all), double(group.machines.size()))) -
                std::accumulate(whole.begin(), whole.end(), 0u);
    for (std::size_t i = 0; i < order.size() && left > 0; ++i, --left) ++whole[order[i]];
    auto next = group.machines.begin();
    for (std::size_t i = 0; i < shares.size(); ++i)
      for (; whole[i] > 0 && next != group.machines.end() && takes(shares[i].first, *next); --whole[i])
        place(*next++, shares[i].first);
  }

  // The fastest first, to the stage that has the least speed for its work.
  void place_the_rest() {
    std::vector<std::uint32_t> rest;
    for (std::uint32_t m = 0; m < placement_.size(); ++m)
      if (placement_[m] == kSpare) rest.push_back(m);
    std::ranges::stable_sort(rest, {}, [&](std::uint32_t m) { return machine(m).seconds_per_operation(); });
    for (const std::uint32_t m : rest) {
      std::uint32_t neediest = kSpare;
      const auto served = [&](std::uint32_t s) { return speed_[s] / problem_.stages[s].operations; };
      for (std::uint32_t s = 0; s < stages_; ++s)
        if (takes(s, m) && (neediest == kSpare || served(s) < served(neediest))) neediest = s;
      if (neediest != kSpare) place(m, neediest);
    }
  }

  // An empty stage takes a machine from one that has two, over others that pass theirs on: an augmenting path.
  bool fill(std::uint32_t empty) {
    std::vector<std::uint32_t> passed(stages_, kSpare);  // which machine a stage would pass on
    std::vector<std::uint32_t> to(stages_, kSpare);
    std::queue<std::uint32_t> open({empty});
    std::vector<bool> seen(stages_);
    seen[empty] = true;
    while (!open.empty()) {
      const std::uint32_t stage = open.front();
      open.pop();
      for (std::uint32_t m = 0; m < placement_.size(); ++m) {
        if (!problem_.fits(m, stage)) continue;
        const std::uint32_t from = placement_[m];
        if (from != kSpare && seen[from]) continue;
        if (from == kSpare || size_[from] > 1) {
          std::uint32_t mover = m, target = stage;
          for (;;) {
            place(mover, target);
            if (target == empty) return true;
            mover = passed[target];
            target = to[target];
          }
        }
        seen[from] = true;
        passed[from] = m;
        to[from] = stage;
        open.push(from);
      }
    }
    return false;
  }

  const PlacementProblem& problem_;
  const std::uint32_t stages_;
  std::vector<Group> groups_;
  Placement placement_;
  std::vector<std::uint32_t> size_;
  std::vector<double> speed_;
};

}  // namespace

std::optional<Placement> place_by_flow(const PlacementProblem& problem) { return Flow(problem).run(); }

}  // namespace isthmus::planner
