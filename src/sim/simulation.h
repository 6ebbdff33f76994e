#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "protocol/plan.h"
#include "sim/cluster.h"
#include "sim/fault_schedule.h"

namespace isthmus::sim {

// One run with faults, from a seed.
struct SimulationResult {
  std::uint64_t seed = 0;
  std::vector<std::string> violations;  // empty: all is as it has to be
  std::vector<Fault> faults;
  std::uint64_t hash = 0;  // of every event, in order
  std::uint64_t commits = 0;
  std::uint64_t messages = 0;
  std::uint64_t replayed = 0;
  double seconds = 0;  // simulated
  std::map<std::string, std::uint64_t> events;
  std::string shape;  // stages × replicas, microbatches, steps
};

// A link of the run's.
struct SimulatedLink {
  Duration latency{};
  Duration tensor{};  // a microbatch's tensor at its sender
};

// Seconds that a plan's steps take together, if nothing overlaps but the microbatches on their way: each stage does
// everything, and sends everything, that a step has.
double steps_take(const protocol::Plan& plan, const SimulatedLink& link);

struct SimulationOptions {
  std::vector<FaultKind> kinds;   // empty: all
  std::uint32_t faults = 0;       // 0: drawn, up to 12
  Duration faulty = seconds(12);  // faults begin and end in this time
  // After the last fault the run has to finish within this, and a multiple of the time that its steps take at least.
  Duration recovery = seconds(180);
  // Nothing: latency from the seed, and links that are hardly ever busy.
  std::optional<SimulatedLink> link;
  std::uint32_t patience = 8;  // bad steps in a row after which the run goes back
  // As in Cluster::Options, for tests that plant a lie.
  Cluster::MakeRunner make_runner = Cluster::Options().make_runner;
  bool dial = true;
  bool homes = false;
};

// Faults on a given plan.
SimulationResult simulate(const protocol::Plan& plan, std::uint64_t seed, const SimulationOptions& options);
// The plan, too, comes from the seed: 2–8 stages of 1–4 replicas.
protocol::Plan draw_plan(std::uint64_t seed);

}  // namespace isthmus::sim
