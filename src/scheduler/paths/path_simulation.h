#pragma once

#include <cstdint>
#include <queue>
#include <utility>
#include <vector>

#include "scheduler/paths/path_problem.h"

namespace isthmus::paths {

// Plays one step of a PathChoice: forward along each path, loss, backward along it reversed. A node does one thing at a
// time and never waits with something to do; a backward (or loss) goes before a forward, then the lower rank first; a
// forward waits while the node's memory is full. Links are not shared: a transfer takes its time whatever else is on
// the way, as in Skip-Pipe. The one measure of all path planners and baselines. Deterministic; reused to save
// allocations.
//
// REQUIRES: a problem that passed check_problem and paths by ascending stage, so that no two wait for each other's
// memory.
class PathSimulation {
 public:
  explicit PathSimulation(const PathProblem& problem);

  // Makespan; the accessors below then tell about this choice, which need not live on. The problem has to.
  Duration run(const PathChoice& choice);

  // Mean end of the microbatches: tells apart choices with equal makespans.
  double mean_end_seconds() const;
  PathPlan plan() const;

  // One operation of the chain that decides the makespan, and whom it waited for.
  struct Critical {
    std::uint32_t microbatch;
    std::uint32_t node;
    bool waited;             // its node was busy, or had no memory left, because of …
    std::uint32_t occupant;  // … this microbatch
    Duration wait;
  };
  // From the last operation back to the first.
  std::vector<Critical> critical() const;

 private:
  static constexpr std::uint32_t kNone = 0xffffffff;
  // The 2·k+1 operations of a path of k nodes in their order: F × k, loss, B × k.
  struct Operation {
    std::uint32_t node;
    Time ready;
    Time start;
    std::uint32_t after;  // operation that ended on the node when this one could start; kNone: it did not wait
  };
  struct NodeState {
    std::uint32_t running = kNone;   // operation
    std::uint32_t finished = kNone;  // the last one
    std::uint32_t in_flight = 0;
    bool touched = false;
    std::vector<std::uint32_t> ready;  // operations
  };

  std::uint32_t microbatches() const { return static_cast<std::uint32_t>(operations_.size()) / width_; }
  std::uint32_t microbatch_of(std::uint32_t operation) const { return operation / width_; }
  std::uint32_t step_of(std::uint32_t operation) const { return operation % width_; }
  Duration duration(std::uint32_t operation) const;
  void arrive(std::uint32_t operation, Time at);
  void finish(std::uint32_t operation, Time at);
  void touch(std::uint32_t node);
  void dispatch(std::uint32_t node, Time now);

  const PathProblem& problem_;
  const std::uint32_t visits_;
  const std::uint32_t width_;                         // operations of a microbatch
  const std::vector<std::uint32_t>* rank_ = nullptr;  // of the choice, while it runs
  std::vector<Operation> operations_;
  std::vector<NodeState> nodes_;
  std::vector<std::uint32_t> touched_;
  // (time, 2·operation + whether it ends rather than arrives)
  using Event = std::pair<Time, std::uint32_t>;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
};

}  // namespace isthmus::paths
