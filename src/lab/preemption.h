#pragma once

#include <cstdint>

#include "scheduler/coordinator/rebalance.h"

namespace isthmus::lab {

struct PreemptionOptions {
  std::uint32_t stages = 32;
  std::uint32_t peers = 400;  // at the start, and on average: as many arrive as are taken away
  double hours = 32;
  double lifetime_hours = 24;       // mean, exponential: machines are taken away without warning and independently
  double spread = 0;                // speeds are uniform in [1 - spread, 1 + spread]
  Duration start_up = seconds(60);  // of a newcomer, before it asks for a stage
  Duration detection = seconds(3);  // until the coordinator takes a silent worker for gone
  std::uint64_t state_bytes = 1'000'000'000;  // of each stage
  double bits_per_second = 80e6;
  double noise = 0.1;  // standard deviation of a measured service time, relative
  Duration evaluation = seconds(10);
};

// Who goes where.
struct PlacementPolicy {
  enum class Newcomers : std::uint8_t {
    kRandom,
    kPoorest,  // to the stage with the fewest replicas
    // To the stage last served by the one that has been gone longest, as in a run, where it takes that one's place. If
    // nobody is missing, which in a run cannot be, to a random one.
    kReplace,
  };
  enum class Moves : std::uint8_t {
    kNone,
    kPeriodic,  // SWARM: every `period` one replica from the stage with the most to that with the fewest
    kRebalance,
  };
  Newcomers newcomers = Newcomers::kRandom;
  Moves moves = Moves::kNone;
  Duration period = seconds(300);
};

struct PreemptionResult {
  double share = 0;      // of the optimum's work in the same time
  double last_hour = 0;  // the same, of the last hour alone
  double moves_per_hour = 0;
  double departures_per_hour = 0;
  double stopped_seconds = 0;  // some stage had no warm replica
};

// The experiment of SWARM (Ryabinin et al., ICML 2023: rebalancing under preemptions), rebuilt: machines come and go,
// every newcomer and every mover fetches its stage's state before it works, and the swarm is as fast as its slowest
// stage. The optimum deals the machines that have started up anew at every moment at no cost: exact for equal speeds;
// with a spread it is the sum of speeds over the stages, which no whole machines reach. All stages cost the same. The
// machines' coming and going is a function of the seed alone, so policies are compared on the same trace. Pure.
// REQUIRES: peers >= stages >= 1, hours >= 1, 0 <= spread < 1.
PreemptionResult simulate_preemptions(const PreemptionOptions& options, const PlacementPolicy& policy,
                                      const coordinator::Rebalance::Options& rebalance, std::uint64_t seed);

}  // namespace isthmus::lab
