#include "scheduler/planner/improve_placement.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>
#include <vector>

namespace isthmus::planner {

namespace {

constexpr std::uint32_t kSmallFleet = 64;
constexpr std::size_t kLooked = 4096;      // of a large fleet's changes, the most promising
constexpr std::size_t kChangesTried = 64;  // of those, that differ
constexpr std::size_t kRoomyStages = 16;   // whose machines a large fleet swaps into the slowest
constexpr double kWorthIt = 1 - 1e-9;

// A move, or a swap with a machine that takes its place.
struct PlacementChange {
  double bound;  // no touched stage can be faster than this; seconds
  std::uint32_t machine;
  std::uint32_t to;
  std::uint32_t other = kSpare;
};

class Improvement {
 public:
  Improvement(const PlacementProblem& problem, PlacementEstimate& estimate)
      : problem_(problem),
        estimate_(estimate),
        machines_(static_cast<std::uint32_t>(problem.fleet->machines.size())),
        stages_(static_cast<std::uint32_t>(problem.stages.size())),
        small_(machines_ <= kSmallFleet) {}

  void run() {
    double score = estimate_.score();
    // Each round costs at most a few milliseconds; the last ones bring nothing.
    for (std::uint32_t round = 0; round < 200 + 20 * stages_; ++round) {
      small_ ? collect_all() : collect_for_the_slowest();
      if (make_one(score)) continue;
      if (small_) return;
      collect_for_the_combination();
      if (!make_one(score)) return;
    }
  }

  bool fill(std::uint32_t stage, std::uint32_t gone) {
    for (std::uint32_t m = 0; m < machines_; ++m)
      if (m != gone) consider_move(m, stage);
    double score = estimate_.score();
    make_one(score);
    return score < std::numeric_limits<double>::infinity();
  }

 private:
  std::uint32_t stage_of(std::uint32_t m) const { return estimate_.placement()[m]; }
  double rate(std::uint32_t m, std::uint32_t s) const {
    return s == kSpare ? 0 : PlacementEstimate::rate(problem_, m, s);
  }
  double smooth(std::uint32_t s, double rate) const { return s == kSpare ? 0 : problem_.microbatches / rate; }
  double stage_rate(std::uint32_t s) const { return s == kSpare ? 0 : estimate_.stage_rate(s); }

  void consider_move(std::uint32_t m, std::uint32_t to) {
    const std::uint32_t from = stage_of(m);
    if (from == to || (from != kSpare && estimate_.members(from).size() == 1)) return;
    if (to != kSpare && (!problem_.fits(m, to) || estimate_.members(to).size() >= problem_.replicas_max)) return;
    const double bound =
        std::max(smooth(from, stage_rate(from) - rate(m, from)), smooth(to, stage_rate(to) + rate(m, to)));
    consider({bound, m, to});
  }

  void consider_swap(std::uint32_t m, std::uint32_t other) {
    const std::uint32_t a = stage_of(m), b = stage_of(other);
    if (a == b || (b != kSpare && !problem_.fits(m, b)) || (a != kSpare && !problem_.fits(other, a))) return;
    const double bound = std::max(smooth(a, stage_rate(a) - rate(m, a) + rate(other, a)),
                                  smooth(b, stage_rate(b) - rate(other, b) + rate(m, b)));
    consider({bound, m, b, other});
  }

  void consider(const PlacementChange& change) {
    if (small_ || change.bound < slowest_ * kWorthIt) changes_.push_back(change);
  }

  void collect_all() {
    changes_.clear();
    for (std::uint32_t m = 0; m < machines_; ++m) {
      for (std::uint32_t s = 0; s < stages_; ++s) consider_move(m, s);
      consider_move(m, kSpare);
      for (std::uint32_t other = m + 1; other < machines_; ++other) consider_swap(m, other);
    }
  }

  // The stages that can best do without a machine.
  std::vector<std::uint32_t> roomy() const {
    std::vector<std::uint32_t> stages(stages_);
    std::iota(stages.begin(), stages.end(), 0u);
    std::ranges::stable_sort(stages, {}, [&](std::uint32_t s) { return estimate_.stage_seconds(s); });
    stages.resize(std::min(stages.size(), kRoomyStages));
    return stages;
  }

  void collect_for_the_slowest() {
    changes_.clear();
    std::uint32_t slow = 0;
    for (std::uint32_t s = 1; s < stages_; ++s)
      if (estimate_.stage_seconds(s) > estimate_.stage_seconds(slow)) slow = s;
    slowest_ = estimate_.stage_seconds(slow);
    for (std::uint32_t m = 0; m < machines_; ++m) consider_move(m, slow);
    for (const std::uint32_t s : roomy())
      for (const std::uint32_t other : estimate_.members(s))
        for (const std::uint32_t m : estimate_.members(slow)) consider_swap(m, other);
  }

  void collect_for_the_combination() {
    changes_.clear();
    std::uint32_t apart = 0;
    for (std::uint32_t s = 1; s < stages_; ++s)
      if (estimate_.combination_seconds(s) > estimate_.combination_seconds(apart)) apart = s;
    if (estimate_.combination_seconds(apart) == 0) return;
    for (const std::uint32_t m : estimate_.members(apart)) {
      for (std::uint32_t s = 0; s < stages_; ++s) consider_move(m, s);
      consider_move(m, kSpare);
      for (const std::uint32_t s : roomy())
        for (const std::uint32_t other : estimate_.members(s)) consider_swap(m, other);
    }
  }

  void make(const PlacementChange& change) {
    const std::uint32_t from = stage_of(change.machine);
    estimate_.move(change.machine, change.to);
    if (change.other != kSpare) estimate_.move(change.other, from);
  }

  // One that helps; false if none does.
  bool make_one(double& score) {
    const auto rank = [](const PlacementChange& c) { return std::tie(c.bound, c.machine, c.to, c.other); };
    if (!small_ && changes_.size() > kLooked) {
      std::ranges::nth_element(changes_, changes_.begin() + kLooked, {}, rank);
      changes_.resize(kLooked);
    }
    std::ranges::sort(changes_, {}, rank);
    if (!small_) {
      // Machines that are alike promise the same.
      const auto same = std::ranges::unique(changes_, {}, &PlacementChange::bound);
      changes_.erase(same.begin(), same.end());
      changes_.resize(std::min(changes_.size(), kChangesTried));
    }
    const PlacementChange* best = nullptr;
    double least = score * kWorthIt;
    for (const PlacementChange& change : changes_) {
      const PlacementChange back{0, change.machine, stage_of(change.machine), change.other};
      make(change);
      const double now = estimate_.score();
      if (now < least || (score == std::numeric_limits<double>::infinity() && now < score && !best)) {
        least = now;
        best = &change;
      }
      if (best == &change && !small_) break;
      make(back);
    }
    if (!best) return false;
    if (small_) make(*best);
    score = least;
    return true;
  }

  const PlacementProblem& problem_;
  PlacementEstimate& estimate_;
  const std::uint32_t machines_;
  const std::uint32_t stages_;
  const bool small_;
  double slowest_ = std::numeric_limits<double>::infinity();
  std::vector<PlacementChange> changes_;
};

}  // namespace

void improve_placement(const PlacementProblem& problem, PlacementEstimate& estimate) {
  Improvement(problem, estimate).run();
}

bool replace_departed(const PlacementProblem& problem, PlacementEstimate& estimate, std::uint32_t gone) {
  const std::uint32_t stage = estimate.placement()[gone];
  estimate.move(gone, kSpare);
  return stage == kSpare || Improvement(problem, estimate).fill(stage, gone);
}

}  // namespace isthmus::planner
