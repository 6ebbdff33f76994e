#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "base/counter_random.h"
#include "base/ids.h"
#include "base/time.h"

namespace isthmus::coordinator {

// A worker as its stage's load sees it.
struct StageReplica {
  PeerId peer;  // not the session: a worker that moves has a new one, and stays the same machine
  StageId stage;
  Duration service{};                 // F + I + W of one microbatch of this stage, as last measured; 0: none done yet
  bool warm = false;                  // a member; otherwise it still fetches the state of `stage`
  bool suspected = false;             // silent, cut off, or not heard of yet: it may be gone
  std::uint64_t memory_bytes = 0;     // of its device, as it says; 0: not known
  double uplink_bits_per_second = 0;  // as measured; 0: not known
  std::set<StageId> barred{};         // stages that it may not serve
};

struct StageCost {
  double work = 1;  // F + I + W of one microbatch relative to the other stages', on equal devices; > 0
  std::uint64_t state_bytes = 0;
  std::uint64_t memory_bytes = 0;  // that a device has to hold; 0: not known
  std::uint64_t sent_bytes = 0;    // a replica's uplink carries for a microbatch, forward and back
  // What replicas tell each other to add up a step's gradients: of n, each sends (n - 1) / n of it. 0: they step on
  // their own.
  std::uint64_t sum_bytes = 0;
};

struct SwarmLoad {
  std::vector<StageCost> stages;
  std::vector<StageReplica> replicas;  // in any order; peers are distinct
  std::uint32_t microbatches = 1;      // per step
  Duration step{};                     // as measured lately; 0: none yet
};

// Seconds of one step, given the seconds that each replica of each stage needs for a microbatch (never empty, > 0).
using StepPredictor =
    std::function<double(const std::vector<std::vector<double>>& services, std::uint32_t microbatches)>;

// The slowest stage's share of the step, microbatches / sum of its replicas' speeds, and the time the first microbatch
// spends in the others. Leaves links out: enough to compare places for replicas; simulate_step knows more and costs
// more.
double bottleneck_step(const std::vector<std::vector<double>>& services, std::uint32_t microbatches);

// Time until a worker that starts to fetch this state is warm: its downlink, or a quarter of the uplinks of `donors`
// siblings, which is what training is taken to leave, whichever is less. Without donors the state comes from elsewhere
// at the speed of the downlink.
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

// Decides when a replica leaves its stage for a poorer one (after SWARM, Ryabinin et al., ICML 2023, whose rule is:
// every 300 s from the richest stage to the poorest). The moves it thinks of form a chain: each takes from another
// stage the replica whose loss and gain leave the smallest maximum of the two, below what the slowest stage needs now,
// and gives it to that stage. A chain, because with several equally slow stages no single move shortens the step. Only
// its first move is made; the rest is thought of anew. Since every move makes the slowest stage faster and no other as
// slow, a chain ends, and the throughput is never below what it was, not even while the mover fetches.
//
// Against going back and forth (Petals reloads the same blocks for no gain): speeds are moving averages, a reason to
// move has to hold for a while, `movers` replicas move at a time, then the swarm rests, and the mover rests for longer.
//
// A stage whose sums take longer than one replica more is worth gives one away: nobody else can make them shorter.
//
// A stage that nobody serves or fetches stops all others, so for that one nothing is waited for. But if the mover is
// lost there the stage may be what it died of, and the next ones would follow it until every stage has one replica:
// then it is waited before another is sent, longer every time, and after a few none is.
//
// Pure; one thread. The same seed and calls give the same moves.
class Rebalance {
 public:
  struct Arrangement;
  struct Options {
    double large_gain = 0.75;  // moves that bring the step below this share of today's are worth any cost
    // Otherwise the seconds they save in this time must exceed their cost. About as long as an arrangement lasts.
    Duration horizon = seconds(3600);
    double significant = 0.05;       // a chain that wins less may be noise
    double bits_per_second = 80e6;   // of a link, up and down
    Duration catch_up = seconds(5);  // from the snapshot to the current weights
    // Share of the throughput that a move is charged with while it lasts: donors give what training leaves, a piece at
    // a time.
    double disturbance = 0.1;
    Duration smoothing = seconds(120);  // of measured speeds
    Duration hold = seconds(20);        // that a reason has to last; longer than a killed process takes to come back
    Duration cool_down = seconds(10);   // between moves, and up to as much again, drawn
    Duration rest = seconds(600);       // before the same replica moves again, unless to an empty stage
    std::size_t movers = 1;             // at a time, those to empty stages not counted
    std::size_t chain = 32;             // moves to think ahead
    Duration refill_pause =
        seconds(30);  // after a mover was lost in the empty stage it was sent to; twice as long after the next
    std::uint32_t refills = 3;  // movers lost there in a row until the stage is given up
  };

  Rebalance(Options options, std::uint64_t seed, StepPredictor predict = bottleneck_step);

  // Call every few seconds and whenever somebody joins or leaves; `now` must not decrease. The caller carries the move
  // out, or says that it was dropped: the worker leaves `from` and comes back as one that fetches `to`. Until it does
  // it counts as on its way, however long the step takes at whose end it leaves.
  std::optional<ReplicaMove> evaluate(const SwarmLoad& load, Time now);
  // A move that was decided here will not be carried out.
  void dropped(PeerId peer);
  // Somebody was moved, by this or anybody; `refill`: because nobody served the stage. After a restart, to be told of
  // the moves of the log before the first evaluation: those may be under way, and whoever made one rests as if it had
  // just been.
  void moved(PeerId peer, StageId to, bool refill);
  // A step was committed in which the stage took part.
  void served(StageId stage);
  // Nobody is sent there any more, until it is served by others.
  bool has_given_up(StageId stage) const;
  // Whether the replica can serve that stage for all that is known of its memory. It can hold as much as it holds.
  static bool fits(const SwarmLoad& load, const StageReplica& replica, StageId stage);

 private:
  struct Journey {
    StageId to;
    Time seen{};         // last; out of sight for longer than `hold`: gone
    Time left = kNever;  // its old stage; until then it waits for the end of the step
    Duration takes{};    // predicted when it left
    bool arrived = false;
  };
  struct Refill {
    std::optional<PeerId> mover;
    std::uint32_t lost = 0;   // movers, in a row
    Time not_before{};        // another one is sent
    std::uint32_t steps = 0;  // that the newest mover took part in
  };
  using Reason = ReplicaMove::Reason;
  struct Machine {
    double seconds_per_work = 0;  // moving average; 0: not measured
    Time measured{};
    Time rests_until{};
  };

  void measure(const SwarmLoad& load, Time now);
  void follow_journeys(const SwarmLoad& load, Time now);
  void follow_refills(const SwarmLoad& load, Time now);
  Arrangement arrange(const SwarmLoad& load, Time now) const;
  Duration takes(const SwarmLoad& load, StageId to) const;
  ReplicaMove start(const ReplicaMove& move, Time now);
  std::optional<ReplicaMove> refill(Arrangement arrangement, Time now) const;
  double saved(double share, Duration takes) const;
  std::optional<ReplicaMove> chain_to_the_slowest(const SwarmLoad& load, Arrangement arrangement) const;
  std::optional<ReplicaMove> away_from_sums(const SwarmLoad& load, const Arrangement& arrangement) const;

  Options options_;
  CounterRandom random_;
  StepPredictor predict_;
  std::map<PeerId, Machine> machines_;
  std::map<PeerId, Journey> moving_;
  std::map<StageId, Refill> refills_;  // that have not proved themselves yet
  std::uint64_t moves_ = 0;
  Time next_move_{};
  std::optional<Time> wins_since_;
};

}  // namespace isthmus::coordinator
