#include "scheduler/paths/path_improvement.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/counter_random.h"
#include "scheduler/paths/path_coverage.h"
#include "scheduler/paths/path_simulation.h"

namespace isthmus::paths {

namespace {

class Annealing {
 public:
  Annealing(const PathProblem& problem, PathChoice start, const PathImprovement& improvement)
      : problem_(problem),
        improvement_(improvement),
        random_(improvement.seed, "path improvement"),
        simulation_(problem),
        stage_of_(problem.stage_of_nodes()),
        now_(std::move(start)),
        coverage_(problem.stages.size()) {
    for (const auto& path : now_.nodes)
      for (const std::uint32_t node : path) ++coverage_[stage_of_[node]];
  }

  PathChoice run() {
    if (now_.nodes.empty()) return now_;
    Measure at = evaluate();
    PathChoice best = now_;
    Measure least = at;
    const double hot = kHot * to_seconds(at.makespan);
    for (std::uint64_t i = 0; i < improvement_.evaluations; ++i) {
      // Squared: most of the time is spent cold.
      const double left = 1 - static_cast<double>(i) / static_cast<double>(improvement_.evaluations);
      undo_.clear();
      if (!move()) continue;
      const Measure next = evaluate();
      if (next.cost() <= at.cost() + hot * left * left * uniform()) {
        at = next;
        critical_ = simulation_.critical();
        if (std::tie(at.makespan, at.mean) < std::tie(least.makespan, least.mean)) {
          least = at;
          best = now_;
        }
      } else {
        take_back();
      }
    }
    return best;
  }

 private:
  static constexpr double kHot = 0.03;  // largest loss that is accepted at first, of the first makespan
  // Weight of the mean end of the microbatches beside the makespan: a slope on its plateaus.
  static constexpr double kMean = 0.3;

  struct Measure {
    Duration makespan;
    double mean;  // seconds
    double cost() const { return to_seconds(makespan) + kMean * mean; }
  };

  Measure evaluate() {
    const Duration makespan = simulation_.run(now_);
    if (critical_.empty()) critical_ = simulation_.critical();
    return {makespan, simulation_.mean_end_seconds()};
  }

  std::uint32_t below(std::size_t limit) { return static_cast<std::uint32_t>(random_.below(limit, drawn_++)); }
  double uniform() { return static_cast<double>(random_.bits(drawn_++) >> 11) * 0x1.0p-53; }
  std::uint32_t any_microbatch() { return below(now_.nodes.size()); }

  // False if the drawn move cannot be made; nothing has changed then.
  bool move() {
    const bool on_chain = below(4) != 0;
    const PathSimulation::Critical drawn =
        on_chain ? critical_[below(critical_.size())] : PathSimulation::Critical{any_microbatch(), 0, false, 0, {}};
    const std::uint32_t a = drawn.microbatch;
    const std::uint32_t b = drawn.waited && below(2) ? drawn.occupant : any_microbatch();
    switch (below(6)) {
      case 0:
        return change_replica(a);
      case 1:
        return change_stage(a);
      case 2:
        return a != b && exchange_replicas(a, b);
      case 3:
        return a != b && exchange_stages(a, b);
      case 4:
        return a != b && exchange_paths(a, b);
      default:
        return a != b && exchange_ranks(a, b);
    }
  }

  std::uint32_t replica(std::uint32_t stage) { return problem_.stages[stage][below(problem_.stages[stage].size())]; }

  bool change_replica(std::uint32_t a) {
    if (problem_.visits < 2) return false;
    std::vector<std::uint32_t> path = now_.nodes[a];
    std::uint32_t& node = path[1 + below(path.size() - 1)];
    const std::uint32_t other = replica(stage_of_[node]);
    if (other == node) return false;
    node = other;
    set(a, std::move(path));
    return true;
  }

  bool exchange_replicas(std::uint32_t a, std::uint32_t b) {
    std::vector<std::uint32_t> of_a = now_.nodes[a], of_b = now_.nodes[b];
    const std::uint32_t from = below(of_a.size());
    for (std::size_t i = 0; i < of_a.size(); ++i) {
      const std::size_t at = (from + i) % of_a.size();
      if (at == 0) continue;  // origins stay
      for (std::size_t j = 1; j < of_b.size(); ++j)
        if (stage_of_[of_a[at]] == stage_of_[of_b[j]] && of_a[at] != of_b[j]) {
          std::swap(of_a[at], of_b[j]);
          set(a, std::move(of_a));
          set(b, std::move(of_b));
          return true;
        }
    }
    return false;
  }

  // The path with stage `out` left out and `node` put in; empty if that is not allowed.
  std::vector<std::uint32_t> replaced(const std::vector<std::uint32_t>& path, std::uint32_t out,
                                      std::uint32_t node) const {
    std::vector<std::uint32_t> changed;
    for (const std::uint32_t visited : path)
      if (stage_of_[visited] != out) changed.push_back(visited);
    changed.push_back(node);
    std::ranges::sort(changed, {}, [&](std::uint32_t n) { return stage_of_[n]; });
    StageSet stages;
    for (const std::uint32_t visited : changed) stages.push_back(stage_of_[visited]);
    return may_visit(problem_, stages) ? changed : std::vector<std::uint32_t>();
  }

  std::uint32_t skippable_stage() { return 1 + below(problem_.end_of_skippable() - 1); }
  bool visits(std::uint32_t microbatch, std::uint32_t stage) const {
    return std::ranges::any_of(now_.nodes[microbatch], [&](std::uint32_t node) { return stage_of_[node] == stage; });
  }

  // Only where the visits do not divide equally: a stage that has one more gives it to one that has one less.
  bool change_stage(std::uint32_t a) {
    if (problem_.end_of_skippable() < 2) return false;
    const std::uint32_t out = skippable_stage(), in = skippable_stage();
    if (coverage_[out] != coverage_[in] + 1 || !visits(a, out) || visits(a, in)) return false;
    auto path = replaced(now_.nodes[a], out, replica(in));
    if (path.empty()) return false;
    set(a, std::move(path));
    return true;
  }

  bool exchange_stages(std::uint32_t a, std::uint32_t b) {
    if (problem_.end_of_skippable() < 2) return false;
    const std::uint32_t of_a = skippable_stage(), of_b = skippable_stage();
    if (!visits(a, of_a) || visits(a, of_b) || visits(b, of_a) || !visits(b, of_b)) return false;
    auto path_a = replaced(now_.nodes[a], of_a, replica(of_b)), path_b = replaced(now_.nodes[b], of_b, replica(of_a));
    if (path_a.empty() || path_b.empty()) return false;
    set(a, std::move(path_a));
    set(b, std::move(path_b));
    return true;
  }

  bool exchange_paths(std::uint32_t a, std::uint32_t b) {
    std::vector<std::uint32_t> of_a = now_.nodes[a], of_b = now_.nodes[b];
    std::swap_ranges(of_a.begin() + 1, of_a.end(), of_b.begin() + 1);
    set(a, std::move(of_a));
    set(b, std::move(of_b));
    return true;
  }

  bool exchange_ranks(std::uint32_t a, std::uint32_t b) {
    std::swap(now_.rank[a], now_.rank[b]);
    exchanged_ = {a, b};
    return true;
  }

  void set(std::uint32_t microbatch, std::vector<std::uint32_t> path) {
    count(now_.nodes[microbatch], -1);
    count(path, 1);
    undo_.push_back({microbatch, std::exchange(now_.nodes[microbatch], std::move(path))});
  }

  void take_back() {
    if (undo_.empty()) std::swap(now_.rank[exchanged_.first], now_.rank[exchanged_.second]);
    for (auto& [microbatch, path] : undo_) {
      count(now_.nodes[microbatch], -1);
      count(path, 1);
      now_.nodes[microbatch] = std::move(path);
    }
  }

  void count(const std::vector<std::uint32_t>& path, int change) {
    for (const std::uint32_t node : path) coverage_[stage_of_[node]] += static_cast<std::uint32_t>(change);
  }

  const PathProblem& problem_;
  const PathImprovement improvement_;
  const CounterRandom random_;
  std::uint64_t drawn_ = 0;
  PathSimulation simulation_;
  const std::vector<std::uint32_t> stage_of_;
  PathChoice now_;
  std::vector<std::uint32_t> coverage_;
  std::vector<PathSimulation::Critical> critical_;
  std::vector<std::pair<std::uint32_t, std::vector<std::uint32_t>>> undo_;  // paths before the move
  std::pair<std::uint32_t, std::uint32_t> exchanged_;                       // microbatches, where no path changed
};

}  // namespace

PathChoice improve_paths(const PathProblem& problem, PathChoice start, const PathImprovement& improvement) {
  return Annealing(problem, std::move(start), improvement).run();
}

}  // namespace isthmus::paths
