#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "protocol/link_matrix.h"
#include "scheduler/planner/step_simulation.h"
#include "spec/run_spec.h"

namespace isthmus::planner {

struct FleetMachine {
  std::string name;
  double memory_bytes = 0;
  // Seconds for as much of F, I and W as goes with one floating-point operation of the forward.
  double forward = 0;
  double input_gradient = 0;
  double weight_gradient = 0;
  double up = 0;  // bits per second
  double down = 0;
  std::uint32_t site = 0;  // row of the fleet's links

  double seconds_per_operation() const { return forward + input_gradient + weight_gradient; }
  // Of a stage of so many forward operations per microbatch.
  protocol::OperationCosts costs(double operations) const {
    return {seconds(forward * operations), seconds(input_gradient * operations), seconds(weight_gradient * operations)};
  }
};

// Machines and what joins them.
struct Fleet {
  std::vector<FleetMachine> machines;
  protocol::LinkMatrix links;
  // F, I and W of a microbatch in the embedding and in the head, in times of what a layer takes: the median of the
  // machines that measured it; nothing if none has.
  std::optional<double> embedding_layers;
  std::optional<double> head_layers;
};

// How many machines of each site, by site.
using SiteCounts = std::vector<std::pair<std::uint32_t, std::uint32_t>>;
SiteCounts count_sites(const Fleet& fleet, const std::vector<std::uint32_t>& members);

// Bits per second at which the slowest of these replicas can add up sums with all others: its uplink, downlink or,
// shared by all siblings, a pair's own rate. `sites`: theirs. Infinite for fewer than two.
double slowest_line(const Fleet& fleet, const std::vector<std::uint32_t>& members, const SiteCounts& sites);

// Forward operations of a microbatch in layers first … end-1, as the planner counts them: where machines measured what
// the embedding or the head takes, its share of a layer's time (the median) stands for its operations. REQUIRES: as
// below.
double planned_operations(const spec::RunSpec& run, const Fleet& fleet, std::uint32_t first_layer,
                          std::uint32_t end_layer);

// The fleet that a run file writes down. Times per layer are those of a layer in the middle. REQUIRES: the run has
// passed its checks; there is a machine.
Fleet make_fleet(const spec::RunSpec& run);

}  // namespace isthmus::planner
