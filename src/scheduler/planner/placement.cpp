#include "scheduler/planner/placement.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace isthmus::planner {

namespace {

constexpr double kNeverDone = std::numeric_limits<double>::infinity();

// When `count` pieces are done that workers of these rates are dealt, each to the one that would be done first.
double dealt_seconds(const std::vector<double>& rates, std::uint32_t count) {
  const double all = std::accumulate(rates.begin(), rates.end(), 0.0);
  if (all <= 0) return kNeverDone;
  // What each has surely done by the time that smooth work would take; then one piece after the other.
  const double smooth = count / all;
  std::vector<std::pair<double, double>> next;  // when the next piece is done, rate
  double left = count;
  for (const double rate : rates) {
    const double done = std::max(0.0, std::floor(smooth * rate - 1e-9));
    left -= done;
    next.emplace_back((done + 1) / rate, rate);
  }
  std::ranges::make_heap(next, std::greater());
  double time = smooth;
  for (; left > 0.5; --left) {
    std::ranges::pop_heap(next, std::greater());
    time = std::max(time, next.back().first);
    next.back().first += 1 / next.back().second;
    std::ranges::push_heap(next, std::greater());
  }
  return time;
}

}  // namespace

PlacementEstimate::PlacementEstimate(const PlacementProblem& problem, const Placement& placement)
    : problem_(problem),
      placement_(placement),
      members_(problem.stages.size()),
      sites_(members_.size()),
      rate_(members_.size()),
      busy_(members_.size()),
      combination_(members_.size()),
      pass_(members_.size()),
      hop_(members_.size()) {
  for (std::uint32_t m = 0; m < placement_.size(); ++m)
    if (placement_[m] != kSpare) count(m, placement_[m], true);
  for (std::uint32_t s = 0; s < members_.size(); ++s) refresh(s);
}

void PlacementEstimate::count(std::uint32_t machine, std::uint32_t stage, bool here) {
  auto& members = members_[stage];
  auto& sites = sites_[stage];
  const std::uint32_t site = problem_.fleet->machines[machine].site;
  const auto at = std::ranges::lower_bound(sites, site, {}, &SiteCounts::value_type::first);
  const auto place = std::ranges::lower_bound(members, machine);
  if (here) {
    members.insert(place, machine);
    if (at != sites.end() && at->first == site)
      ++at->second;
    else
      sites.insert(at, {site, 1});
  } else {
    members.erase(place);
    if (--at->second == 0) sites.erase(at);
  }
}

void PlacementEstimate::move(std::uint32_t machine, std::uint32_t stage) {
  const std::uint32_t from = placement_[machine];
  if (from == stage) return;
  placement_[machine] = stage;
  if (from != kSpare) count(machine, from, false);
  if (stage != kSpare) count(machine, stage, true);
  const auto last = static_cast<std::uint32_t>(members_.size()) - 1;
  for (const std::uint32_t changed : {from, stage}) {
    if (changed == kSpare) continue;
    refresh(changed);
    // Its neighbours send to others now.
    if (changed > 0) hop_[changed - 1] = hop(changed - 1);
    if (!problem_.fleet->links.capped()) continue;
    if (changed > 0) busy_[changed - 1] = busy(changed - 1);
    if (changed < last) busy_[changed + 1] = busy(changed + 1);
  }
}

void PlacementEstimate::refresh(std::uint32_t stage) {
  rate_[stage] = 0;
  double passes = 0;  // a second, of all replicas
  for (const std::uint32_t m : members_[stage]) {
    const auto& machine = problem_.fleet->machines[m];
    rate_[stage] += rate(problem_, m, stage);
    passes += 1 / (problem_.stages[stage].operations * (machine.forward + machine.input_gradient));
  }
  pass_[stage] = members_[stage].empty() ? kNeverDone : static_cast<double>(members_[stage].size()) / passes;
  busy_[stage] = busy(stage);
  combination_[stage] = combination(stage);
  hop_[stage] = hop(stage);
}

double PlacementEstimate::rate(const PlacementProblem& problem, std::uint32_t m, std::uint32_t stage) {
  const auto& machine = problem.fleet->machines[m];
  double slowest = problem.stages[stage].operations * machine.seconds_per_operation();
  const double forward = wire_bits(problem.forward_bytes), backward = wire_bits(problem.backward_bytes);
  const double next = stage + 1 < problem.stages.size() ? 1 : 0, before = stage > 0 ? 1 : 0;
  slowest = std::max({slowest, (next * forward + before * backward) / machine.up,
                      (before * forward + next * backward) / machine.down});
  return 1 / slowest;
}

bool PlacementEstimate::idle(std::uint32_t machine) const {
  const std::uint32_t stage = placement_[machine];
  return busy_[stage] != kNeverDone && 1 / rate(problem_, machine, stage) > busy_[stage] * (1 + 1e-9);
}

double PlacementEstimate::pair_sum(std::uint32_t site, std::uint32_t stage) const {
  double sum = 0;
  for (const auto& [other, machines] : sites_[stage])
    sum += machines * problem_.fleet->links.at(site, other).bits_per_second;
  return sum;
}

double PlacementEstimate::busy(std::uint32_t stage) const {
  std::vector<double> rates;
  rates.reserve(members_[stage].size());
  for (const std::uint32_t m : members_[stage]) {
    double own = rate(problem_, m, stage);
    if (problem_.fleet->links.capped()) {
      const std::uint32_t site = problem_.fleet->machines[m].site;
      if (stage + 1 < members_.size())
        own = std::min(own, pair_sum(site, stage + 1) / wire_bits(problem_.forward_bytes));
      if (stage > 0) own = std::min(own, pair_sum(site, stage - 1) / wire_bits(problem_.backward_bytes));
    }
    if (own > 0) rates.push_back(own);
  }
  return dealt_seconds(rates, problem_.microbatches);
}

double PlacementEstimate::combination(std::uint32_t stage) const {
  const double replicas = static_cast<double>(members_[stage].size());
  if (replicas < 2 || problem_.sum_bytes == 0) return 0;
  Duration latency{};
  const auto& sites = sites_[stage];
  for (std::size_t i = 0; i < sites.size(); ++i)
    for (std::size_t j = i; j < sites.size(); ++j) {
      if (i == j && sites[i].second < 2) continue;
      latency = std::max(latency, problem_.fleet->links.at(sites[i].first, sites[j].first).latency);
    }
  const double bytes = problem_.stages[stage].parameters * (replicas - 1) / replicas * problem_.sum_bytes;
  return 4 * to_seconds(latency) + wire_bits(bytes) / slowest_line(*problem_.fleet, members_[stage], sites);
}

double PlacementEstimate::hop(std::uint32_t stage) const {
  if (stage + 1 == members_.size()) return 0;
  double latency = 0, pairs = 0, up = 0, up_next = 0;
  for (const auto& [a, count_a] : sites_[stage])
    for (const auto& [b, count_b] : sites_[stage + 1]) {
      latency += double(count_a) * count_b * to_seconds(problem_.fleet->links.at(a, b).latency);
      pairs += double(count_a) * count_b;
    }
  if (pairs == 0) return 0;
  for (const std::uint32_t m : members_[stage]) up = std::max(up, problem_.fleet->machines[m].up);
  for (const std::uint32_t m : members_[stage + 1]) up_next = std::max(up_next, problem_.fleet->machines[m].up);
  return 2 * latency / pairs + wire_bits(problem_.forward_bytes) / up + wire_bits(problem_.backward_bytes) / up_next;
}

double PlacementEstimate::step_seconds() const {
  const auto slowest = static_cast<std::size_t>(std::ranges::max_element(busy_) - busy_.begin());
  if (busy_[slowest] == kNeverDone) return kNeverDone;
  const double fill = std::accumulate(pass_.begin(), pass_.end(), 0.0) - pass_[slowest] +
                      std::accumulate(hop_.begin(), hop_.end(), 0.0);
  return busy_[slowest] + fill + *std::ranges::max_element(combination_);
}

double PlacementEstimate::score() const {
  const double step = step_seconds();
  if (step == kNeverDone) return step;
  const double slowest = *std::ranges::max_element(busy_);
  double crowd = 0;
  for (const double seconds : busy_) {
    const double square = seconds / slowest * (seconds / slowest);
    crowd += square * square * square * square;
  }
  return step + 1e-3 * slowest * crowd / static_cast<double>(busy_.size());
}

void set_idle_aside(const PlacementProblem& problem, Placement& placement) {
  const PlacementEstimate estimate(problem, placement);
  for (std::uint32_t m = 0; m < placement.size(); ++m)
    if (placement[m] != kSpare && estimate.idle(m)) placement[m] = kSpare;
}

}  // namespace isthmus::planner
