#include "scheduler/paths/make_path_problem.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/counter_random.h"

namespace isthmus::paths {

namespace {

Duration transfer(const config::PathsConfig& paths, double rtt_ms) {
  const auto& link = paths.link;
  const double rtt = std::clamp(rtt_ms, link.fastest_rtt_ms, link.slowest_rtt_ms);
  const double power =
      std::log(link.slowest_mbps / link.fastest_mbps) / std::log(link.slowest_rtt_ms / link.fastest_rtt_ms);
  const double mbps = link.fastest_mbps * std::pow(rtt / link.fastest_rtt_ms, power);
  return seconds(rtt / 2000 + link.overhead_seconds + static_cast<double>(paths.microbatch_bytes) * 8 / (mbps * 1e6));
}

}  // namespace

std::vector<std::uint32_t> draw_regions(const config::PathsConfig& paths, std::uint64_t seed) {
  std::vector<std::uint32_t> region_of(std::accumulate(paths.stages.begin(), paths.stages.end(), 0u));
  const CounterRandom random(seed, "regions");
  std::vector<std::uint32_t> regions(paths.region.size());
  std::iota(regions.begin(), regions.end(), 0);
  std::uint64_t drawn = 0;
  const auto shuffle = [&](auto& values) {
    for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.below(i, drawn++)]);
  };
  shuffle(regions);
  for (std::size_t node = 0; node < region_of.size(); ++node) region_of[node] = regions[node % regions.size()];
  shuffle(region_of);
  return region_of;
}

PathProblem make_path_problem(const config::PathsConfig& paths, const std::vector<std::uint32_t>& region_of_node) {
  PathProblem problem;
  problem.visits = paths.visits;
  problem.skips_in_a_row = paths.skips_in_a_row;
  problem.end = paths.end == "last_stage" ? PathEnd::kLastStage : PathEnd::kOrigin;
  problem.microbatches.assign(paths.stages[0], paths.microbatches);
  problem.nodes.assign(region_of_node.size(),
                       {seconds(paths.forward_seconds), seconds(paths.forward_seconds * paths.backward),
                        seconds(paths.forward_seconds * paths.loss), paths.memory});
  std::uint32_t node = 0;
  for (const std::uint32_t count : paths.stages) {
    problem.stages.emplace_back(count);
    std::iota(problem.stages.back().begin(), problem.stages.back().end(), node);
    node += count;
  }
  // One figure for each pair of regions.
  std::vector<std::vector<Duration>> between(paths.region.size());
  for (std::size_t a = 0; a < paths.region.size(); ++a) {
    for (std::size_t b = 0; b < a; ++b) between[a].push_back(transfer(paths, paths.region[a].rtt_ms[b]));
    between[a].push_back(transfer(paths, 0));
  }
  for (std::uint32_t from = 0; from < node; ++from)
    for (std::uint32_t to = 0; to < node; ++to) {
      const auto [near, far] = std::minmax(region_of_node[from], region_of_node[to]);
      problem.transfer.push_back(from == to ? Duration{} : between[far][near]);
    }
  return problem;
}

}  // namespace isthmus::paths
