#include "scheduler/planner/place_exactly.h"

#include <limits>
#include <tuple>
#include <vector>

namespace isthmus::planner {

namespace {

auto traits(const FleetMachine& m) {
  return std::tie(m.memory_bytes, m.forward, m.input_gradient, m.weight_gradient, m.up, m.down, m.site);
}

class Search {
 public:
  explicit Search(const PlacementProblem& problem)
      : problem_(problem),
        machines_(static_cast<std::uint32_t>(problem.fleet->machines.size())),
        stages_(static_cast<std::uint32_t>(problem.stages.size())),
        estimate_(problem, Placement(machines_, kSpare)),
        alike_(machines_, kSpare) {
    for (std::uint32_t m = 0; m < machines_; ++m)
      for (std::uint32_t before = m; before-- > 0 && alike_[m] == kSpare;)
        if (traits(problem.fleet->machines[before]) == traits(problem.fleet->machines[m])) alike_[m] = before;
  }

  // Placements to look at, a little above the limit at most.
  std::uint64_t count(std::uint64_t limit) const {
    std::uint64_t all = 1;
    std::vector<std::uint64_t> rank(machines_, 1);
    for (std::uint32_t m = 0; m < machines_ && all <= limit; ++m) {
      if (alike_[m] != kSpare) rank[m] = rank[alike_[m]] + 1;
      // Multisets of n out of stages + 1: one factor per machine, exact in this order.
      all = all * (stages_ + rank[m]) / rank[m];
    }
    return all;
  }

  std::optional<Placement> run() {
    descend(0);
    if (best_ == std::numeric_limits<double>::infinity()) return std::nullopt;
    return found_;
  }

 private:
  void descend(std::uint32_t m) {
    if (m == machines_) {
      if (const double score = estimate_.score(); score < best_) {
        best_ = score;
        found_ = estimate_.placement();
      }
      return;
    }
    // kSpare, the last choice, is above every stage.
    const std::uint32_t least = alike_[m] == kSpare ? 0 : estimate_.placement()[alike_[m]];
    for (std::uint32_t s = least; s < stages_; ++s) {
      if (!problem_.fits(m, s) || estimate_.members(s).size() >= problem_.replicas_max) continue;
      estimate_.move(m, s);
      descend(m + 1);
    }
    estimate_.move(m, kSpare);
    descend(m + 1);
  }

  const PlacementProblem& problem_;
  const std::uint32_t machines_;
  const std::uint32_t stages_;
  PlacementEstimate estimate_;
  std::vector<std::uint32_t> alike_;  // the one before that is like it, or kSpare
  double best_ = std::numeric_limits<double>::infinity();
  Placement found_;
};

}  // namespace

std::optional<Placement> place_exactly(const PlacementProblem& problem, std::uint64_t limit) {
  Search search(problem);
  if (search.count(limit) > limit) return std::nullopt;
  return search.run();
}

}  // namespace isthmus::planner
