#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "base/counter_random.h"
#include "base/ids.h"
#include "base/time.h"

namespace isthmus {

// A worker as its stage's load sees it.
struct StageReplica {
  PeerId peer;  // not the session: a worker that moves has a new one, and stays the same machine
  StageId stage;
  Duration service{};      // F + I + W of one microbatch of this stage, as last measured; 0: none done yet
  bool warm = false;       // a member; otherwise it still fetches the state of `stage`
  bool suspected = false;  // silent or cut off: it may be gone
};

struct StageCost {
  double work = 1;  // F + I + W of one microbatch relative to the other stages', on equal devices; > 0
  std::uint64_t state_bytes = 0;
};

struct SwarmLoad {
  std::vector<StageCost> stages;
  std::vector<StageReplica> replicas;  // in any order; peers are distinct
  std::uint32_t microbatches = 1;      // per step
  Duration step{};                     // as measured lately; 0: none yet
};

// Seconds of one step, given the seconds that each replica of each stage needs for a microbatch (never empty, > 0).
using StepPredictor = std::function<double(const std::vector<std::vector<double>>& services, std::uint32_t microbatches)>;

// The slowest stage's share of the step, microbatches / sum of its replicas' speeds, and the time the first microbatch
// spends in the others. Leaves links out: enough to compare places for replicas; simulate_step knows more and costs more.
double bottleneck_step(const std::vector<std::vector<double>>& services, std::uint32_t microbatches);

// Time until a worker that starts to fetch this state is warm: its downlink, or the quarter of their uplinks that
// `donors` siblings give, whichever is less. Without donors the state comes from elsewhere at the speed of the downlink.
Duration fetch_time(std::uint64_t state_bytes, std::size_t donors, double bits_per_second);

struct ReplicaMove {
  enum class Reason : std::uint8_t { kEmptyStage, kLargeGain, kGainOverHorizon };
  PeerId peer;
  StageId from;
  StageId to;
  Reason reason;
  Duration step_before{};  // predicted, once everything under way has arrived; kNever: there was an empty stage
  Duration step_after{};   // after this move and those that are to follow it
  friend bool operator==(const ReplicaMove&, const ReplicaMove&) = default;
};

// Decides when a replica leaves its stage for a poorer one (after SWARM, Ryabinin et al., ICML 2023, whose rule is: every
// 300 s from the richest stage to the poorest). The moves it thinks of form a chain: each takes from another stage the
// replica whose loss and gain leave the smallest maximum of the two, below what the slowest stage needs now, and gives it
// to that stage. A chain, because with several equally slow stages no single move shortens the step. Only its first move
// is made; the rest is thought of anew. Since every move makes the slowest stage faster and no other as slow, a chain
// ends, and the throughput is never below what it was, not even while the mover fetches.
//
// Against going back and forth (Petals reloads the same blocks for no gain): speeds are moving averages, a reason to move
// has to hold for a while, `movers` replicas move at a time, then the swarm rests, and the mover rests for longer.
//
// A stage that nobody serves or fetches stops all others, so for that one nothing is waited for.
//
// Pure; one thread. The same seed and calls give the same moves.
class Rebalance {
 public:
  struct Arrangement;
  struct Options {
    double large_gain = 0.75;  // moves that bring the step below this share of today's are worth any cost
    // Otherwise the seconds they save in this time must exceed their cost. About as long as an arrangement lasts.
    Duration horizon = seconds(3600);
    double significant = 0.05;  // a chain that wins less may be noise
    double bits_per_second = 80e6;  // of a link, up and down
    Duration catch_up = seconds(5);   // from the snapshot to the current weights
    // Share of the throughput that a move is charged with while it lasts: donors give a quarter of their uplink, and most
    // of the rest is free.
    double disturbance = 0.1;
    Duration smoothing = seconds(120);  // of measured speeds
    Duration hold = seconds(20);  // that a reason has to last; longer than a killed process takes to come back
    Duration cool_down = seconds(10);    // between moves, and up to as much again, drawn
    Duration rest = seconds(600);        // before the same replica moves again, unless to an empty stage
    std::size_t movers = 1;  // at a time, those to empty stages not counted
    std::size_t chain = 32;              // moves to think ahead
  };

  Rebalance(Options options, std::uint64_t seed, StepPredictor predict = bottleneck_step);

  // Call every few seconds and whenever somebody joins or leaves; `now` must not decrease. The caller carries the move
  // out: the worker leaves `from` and comes back as one that fetches `to`. Until it does it counts as on its way.
  std::optional<ReplicaMove> evaluate(const SwarmLoad& load, Time now);

 private:
  struct Journey {
    StageId to;
    Time seen{};  // last; out of sight for longer than `hold`: gone
    Time given_up{};
  };
  struct Machine {
    double seconds_per_work = 0;  // moving average; 0: not measured
    Time measured{};
    Time rests_until{};
  };

  void measure(const SwarmLoad& load, Time now);
  void follow_journeys(const SwarmLoad& load, Time now);
  Arrangement arrange(const SwarmLoad& load, Time now) const;
  ReplicaMove start(const ReplicaMove& move, Duration takes, Time now);

  Options options_;
  CounterRandom random_;
  StepPredictor predict_;
  std::map<PeerId, Machine> machines_;
  std::map<PeerId, Journey> moving_;
  std::uint64_t moves_ = 0;
  Time next_move_{};
  std::optional<Time> wins_since_;
};

}  // namespace isthmus
