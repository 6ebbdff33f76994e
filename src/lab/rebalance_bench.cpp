#include "lab/rebalance_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace isthmus::lab {

namespace {

using Newcomers = PlacementPolicy::Newcomers;
using Moves = PlacementPolicy::Moves;

struct PolicyRow {
  std::string newcomers;
  std::string moves;
  PlacementPolicy policy;
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace

int bench_rebalance(const RebalanceBenchOptions& options) {
  const auto& swarm = options.preemption;
  if (swarm.peers < swarm.stages) {
    fmt::print(stderr, "--peers {}: fewer than stages, expected at least {}\n", swarm.peers, swarm.stages);
    return 2;
  }
  const std::vector<PolicyRow> rows = {
      {"random stage", "none", {Newcomers::kRandom, Moves::kNone}},
      {"poorest stage", "none", {Newcomers::kPoorest, Moves::kNone}},
      {"random stage", "SWARM, 300 s", {Newcomers::kRandom, Moves::kPeriodic, seconds(300)}},
      {"random stage", "SWARM, 60 s", {Newcomers::kRandom, Moves::kPeriodic, seconds(60)}},
      {"poorest stage", "SWARM, 300 s", {Newcomers::kPoorest, Moves::kPeriodic, seconds(300)}},
      {"poorest stage", "SWARM, 60 s", {Newcomers::kPoorest, Moves::kPeriodic, seconds(60)}},
      {"random stage", "rebalance", {Newcomers::kRandom, Moves::kRebalance}},
      {"poorest stage", "rebalance", {Newcomers::kPoorest, Moves::kRebalance}},
      {"freed place", "rebalance", {Newcomers::kReplace, Moves::kRebalance}},
  };
  nlohmann::ordered_json json = {{"stages", swarm.stages},
                                 {"peers", swarm.peers},
                                 {"hours", swarm.hours},
                                 {"seeds", options.seeds},
                                 {"lifetime_hours", swarm.lifetime_hours},
                                 {"state_bytes", swarm.state_bytes},
                                 {"spread", swarm.spread},
                                 {"noise", swarm.noise}};
  std::string text = fmt::format(
      "{} stages, {} machines that live {} h on average, {} h, {} seeds; state {} MB over {:.0f} Mb/s, start-up {:.0f} "
      "s, speeds ±{:.0f} %, noise {:.0f} %\n"
      "share of the optimum's throughput, which deals the machines anew at every moment at no cost\n\n"
      "{:<16}{:<14}{:>8}{:>8}{:>12}{:>10}{:>11}\n",
      swarm.stages, swarm.peers, swarm.lifetime_hours, swarm.hours, options.seeds, swarm.state_bytes / 1'000'000,
      swarm.bits_per_second / 1e6, to_seconds(swarm.start_up), swarm.spread * 100, swarm.noise * 100, "newcomers to",
      "moves", "median", "worst", "last hour", "moves/h", "stopped s");
  double departures = 0;
  for (const auto& row : rows) {
    std::vector<double> shares, last_hours, moves, stopped;
    for (std::uint64_t seed = 1; seed <= options.seeds; ++seed) {
      const auto result = simulate_preemptions(swarm, row.policy, {}, seed);
      shares.push_back(result.share);
      last_hours.push_back(result.last_hour);
      moves.push_back(result.moves_per_hour);
      stopped.push_back(result.stopped_seconds);
      departures += result.departures_per_hour / static_cast<double>(options.seeds * rows.size());
    }
    const double worst = *std::ranges::min_element(shares);
    json["policies"].push_back({{"newcomers", row.newcomers},
                                {"moves", row.moves},
                                {"share", median(shares)},
                                {"share_worst", worst},
                                {"last_hour", median(last_hours)},
                                {"moves_per_hour", median(moves)},
                                {"stopped_seconds", median(stopped)}});
    text += fmt::format("{:<16}{:<14}{:>8.3f}{:>8.3f}{:>12.3f}{:>10.1f}{:>11.0f}\n", row.newcomers, row.moves,
                        median(shares), worst, median(last_hours), median(moves), median(stopped));
  }
  json["departures_per_hour"] = departures;
  text += fmt::format("\n{:.1f} departures per hour\n", departures);
  fmt::print("{}", options.json ? json.dump() + "\n" : text);
  return 0;
}

}  // namespace isthmus::lab
