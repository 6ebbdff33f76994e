#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/replicas_max.h"
#include "scheduler/planner/fleet.h"

namespace isthmus::planner {

// What a stage asks of a machine.
struct StageNeeds {
  double operations = 0;  // forward, per microbatch
  double memory_bytes = 0;
  double parameters = 0;
};

// Stages that want machines.
struct PlacementProblem {
  const Fleet* fleet = nullptr;  // not owned
  std::vector<StageNeeds> stages;
  std::uint32_t microbatches = 1;
  std::uint32_t replicas_max = kReplicasMax;  // of a stage
  double forward_bytes = 0;                   // of one microbatch on a boundary, token ids included
  double backward_bytes = 0;
  double sum_bytes =
      8;  // per parameter that replicas of a stage exchange every step, part and total; 0: they exchange nothing

  bool fits(std::size_t machine, std::size_t stage) const {
    return stages[stage].memory_bytes <= fleet->machines[machine].memory_bytes;
  }
};

inline constexpr std::uint32_t kSpare = ~0u;

// By machine: its stage, or kSpare.
using Placement = std::vector<std::uint32_t>;

// How long a step takes with a placement, told in microseconds where the predictor needs milliseconds to seconds:
//
//   the slowest stage's microbatches + filling the pipeline past the others + the slowest combination of replicas
//
// A replica serves microbatches as fast as its device, uplink, downlink and pair links allow, and a stage is done when
// whole microbatches, dealt to its replicas by finish time, are. It knows no queues, so a step may take longer.
class PlacementEstimate {
 public:
  // REQUIRES: `problem` outlives this.
  PlacementEstimate(const PlacementProblem& problem, const Placement& placement);

  // Takes a machine from its stage to another one or kSpare; what it cost before can be had by moving it back.
  void move(std::uint32_t machine, std::uint32_t stage);

  const Placement& placement() const { return placement_; }
  const std::vector<std::uint32_t>& members(std::uint32_t stage) const { return members_[stage]; }
  // Infinite as long as a stage has no machine.
  double step_seconds() const;
  // To compare placements by: the step, and a little for every stage that is nearly as slow as the slowest, so that of
  // several one may be mended after the other.
  double score() const;
  double stage_seconds(std::uint32_t stage) const { return busy_[stage]; }
  double combination_seconds(std::uint32_t stage) const { return combination_[stage]; }
  // Microbatches per second of a machine at a stage, whatever its neighbours are.
  static double rate(const PlacementProblem& problem, std::uint32_t machine, std::uint32_t stage);
  // Whether a microbatch on it, a member of a stage, takes longer than all of them take the stage: none is dealt to it.
  bool idle(std::uint32_t machine) const;
  // The sum of it over a stage's machines.
  double stage_rate(std::uint32_t stage) const { return rate_[stage]; }

 private:
  void count(std::uint32_t machine, std::uint32_t stage, bool here);
  void refresh(std::uint32_t stage);
  double busy(std::uint32_t stage) const;
  double combination(std::uint32_t stage) const;
  double hop(std::uint32_t stage) const;
  double pair_sum(std::uint32_t site, std::uint32_t stage) const;

  const PlacementProblem& problem_;
  Placement placement_;
  std::vector<std::vector<std::uint32_t>> members_;  // by stage, ascending
  std::vector<SiteCounts> sites_;
  std::vector<double> rate_;
  std::vector<double> busy_;
  std::vector<double> combination_;
  std::vector<double> pass_;  // F and I of a microbatch, mean over those that replicas do in the same time
  std::vector<double> hop_;   // there and back to the next stage
};

// Members of stages that the estimate calls idle become spares: what they would be asked to send or keep must not
// decide anything.
void set_idle_aside(const PlacementProblem& problem, Placement& placement);

}  // namespace isthmus::planner
