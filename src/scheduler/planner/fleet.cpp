#include "scheduler/planner/fleet.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <vector>

#include "config/fleet_links.h"
#include "spec/stage_costs.h"

namespace isthmus::planner {

namespace {

// Forward operations of one microbatch in a layer in the middle.
double layer_operations(const spec::RunSpec& run) {
  return spec::middle_layer_operations(run) * run.train.sequences_per_microbatch * run.model.context;
}

// What a part takes in times of what a layer takes; nothing if nobody has measured it.
std::optional<double> in_layers(const spec::RunSpec& run, double spec::RunSpec::Machine::*part) {
  std::vector<double> shares;
  for (const auto& machine : run.fleet.machine)
    if (machine.*part > 0)
      shares.push_back(machine.*part / (machine.forward_ms + machine.input_gradient_ms + machine.weight_gradient_ms));
  if (shares.empty()) return {};
  const auto middle = shares.begin() + static_cast<std::ptrdiff_t>(shares.size() / 2);
  std::ranges::nth_element(shares, middle);
  return *middle;
}

}  // namespace

SiteCounts count_sites(const Fleet& fleet, const std::vector<std::uint32_t>& members) {
  std::map<std::uint32_t, std::uint32_t> counts;
  for (const std::uint32_t m : members) ++counts[fleet.machines[m].site];
  return {counts.begin(), counts.end()};
}

double slowest_line(const Fleet& fleet, const std::vector<std::uint32_t>& members, const SiteCounts& sites) {
  double line = std::numeric_limits<double>::infinity();
  if (members.size() < 2) return line;
  for (const std::uint32_t m : members) line = std::min({line, fleet.machines[m].up, fleet.machines[m].down});
  if (!fleet.links.capped()) return line;
  const double others = static_cast<double>(members.size()) - 1;
  for (std::size_t i = 0; i < sites.size(); ++i)
    for (std::size_t j = i; j < sites.size(); ++j)
      if (i != j || sites[i].second > 1)
        line = std::min(line, others * fleet.links.at(sites[i].first, sites[j].first).bits_per_second);
  return line;
}

double planned_operations(const spec::RunSpec& run, const Fleet& fleet, std::uint32_t first_layer,
                          std::uint32_t end_layer) {
  const double tokens = static_cast<double>(run.train.sequences_per_microbatch) * run.model.context;
  double operations = spec::forward_operations(run, first_layer, end_layer) * tokens;
  if (first_layer == 0 && fleet.embedding_layers) operations += *fleet.embedding_layers * layer_operations(run);
  if (end_layer == run.model.layers && fleet.head_layers)
    operations += *fleet.head_layers * layer_operations(run) - spec::head_operations(run) * tokens;
  return operations;
}

Fleet make_fleet(const spec::RunSpec& run) {
  Fleet fleet;
  const config::FleetLinks links(run.fleet);
  const auto sites = static_cast<std::uint32_t>(links.sites().size());
  fleet.links = protocol::LinkMatrix(sites);
  for (std::uint32_t a = 0; a < sites; ++a)
    for (std::uint32_t b = a; b < sites; ++b) {
      protocol::PairLink link{.latency = seconds(run.link.latency_ms * 1e-3)};
      if (const auto choice = links.between(a, b); choice.link) {
        const auto& given = run.fleet.link[*choice.link];
        link = {given.mbps * 1e6, seconds(given.latency_ms * 1e-3)};
      }
      fleet.links.record(a, b, link);
    }
  fleet.embedding_layers = in_layers(run, &spec::RunSpec::Machine::embedding_ms);
  fleet.head_layers = in_layers(run, &spec::RunSpec::Machine::head_ms);
  const double layer = layer_operations(run);
  for (std::size_t t = 0; t < run.fleet.machine.size(); ++t) {
    const auto& table = run.fleet.machine[t];
    for (std::uint32_t n = 0; n < table.count; ++n) {
      FleetMachine& machine = fleet.machines.emplace_back();
      machine.name = config::machine_name(table, n);
      machine.memory_bytes = table.memory_gb * 1e9;
      if (table.gflops > 0) {
        machine.forward = machine.input_gradient = machine.weight_gradient = 1e-9 / table.gflops;
      } else {
        machine.forward = table.forward_ms * 1e-3 / layer;
        machine.input_gradient = table.input_gradient_ms * 1e-3 / layer;
        machine.weight_gradient = table.weight_gradient_ms * 1e-3 / layer;
      }
      machine.up = table.uplink_mbps * 1e6;
      machine.down = table.downlink_mbps * 1e6;
      machine.site = links.site_of(t, n);
    }
  }
  return fleet;
}

}  // namespace isthmus::planner
