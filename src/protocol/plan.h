#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "base/time.h"

namespace isthmus::protocol {

struct StagePlan {
  std::uint32_t first_layer = 0;
  std::uint32_t end_layer = 0;
  std::uint32_t replicas = 1;
  // Microbatches that may be in flight at this stage: forward accepted, gradient not yet returned.
  std::uint32_t credits = 1;
  // Numbers in the stage's summed gradient, one per trained parameter.
  std::uint64_t parameters = 0;
  // Weights and optimizer state as one replica sends them to another.
  std::uint64_t state_bytes = 0;
  // Its replicas take steps of their own between syncs (Plan::sync_every).
  bool local = false;
  // What a replica tells its siblings at a sync, slice by slice: bytes of each (compress/update_codec.h).
  std::vector<std::uint64_t> update_bytes;
  std::vector<std::uint64_t> last_update_bytes;  // of the last sync
  // F + I + W of one microbatch relative to the other stages', on equal devices.
  double work = 1;
  // What a device that serves the stage has to hold, bytes; 0: not known.
  std::uint64_t memory_bytes = 0;
  friend bool operator==(const StagePlan&, const StagePlan&) = default;
};

enum class ScheduleKind : std::uint8_t { kDeep, kOneForwardOneBackward };

// Which replica gets a microbatch: the one that would be done with it first, or, to compare with, one after the other.
enum class Routing : std::uint8_t { kFinishTime, kRoundRobin };

// Everything that is fixed for a run and that all its processes derive alike from the run file. Derived numbers are
// computed once, here (scheduler/planner/make_plan.h), and nowhere else.
struct Plan {
  // Digest of the resolved run and its seed: frames of another run are refused.
  std::uint64_t run_id = 0;
  std::vector<StagePlan> stages;
  ScheduleKind schedule = ScheduleKind::kDeep;
  Routing routing = Routing::kFinishTime;
  // Visits of a stage by a microbatch that a step leaves out on purpose (protocol/step_paths.h).
  std::uint32_t planned_skips = 0;
  // An inner stage that nobody has served for so long is skipped until somebody does (0: waited for), for so many steps
  // in a row.
  Duration skip_after{};
  std::uint32_t skip_steps = 0;
  std::uint64_t steps = 0;
  std::uint32_t microbatches = 0;             // training, per step
  std::uint32_t evaluation_microbatches = 0;  // per evaluation
  std::uint64_t evaluate_every = 0;
  std::uint64_t checkpoint_every = 0;
  std::uint32_t tokens_per_microbatch = 0;  // sequences × context
  // Exact payload sizes of one microbatch on every boundary, in bytes.
  std::uint64_t token_bytes = 0;     // token ids, forward only
  std::uint64_t forward_bytes = 0;   // coefficients forward
  std::uint64_t backward_bytes = 0;  // their gradient
  // Bytes per parameter of a replica's own gradient sum (int64 in deterministic mode) and of the stage's combined one.
  std::uint32_t part_width = 4;
  std::uint32_t total_width = 4;

  // Steps between two syncs of the replicas that step on their own; 0: no stage has such.
  std::uint64_t sync_every = 0;
  // Updates are few numbers of many, and every replica gets all of them. Otherwise, and at the last sync, a slice is
  // summed up by two replicas, who check each other.
  bool sync_is_sparse = false;

  // The commit of such a step makes replicas agree on the weights that they had before it, steps first … sync_every
  // behind the last sync. What they tell each other has the whole step to travel. The last one comes after all
  // training.
  bool syncs(StepId step) const {
    if (sync_every == 0 || step.value <= 1 || step.value > steps + 1) return false;
    return (step.value - 1) % sync_every == 0 || step.value == steps + 1;
  }
  // How the update of this version's weights is told.
  bool sparse_sync(std::uint64_t version) const { return sync_is_sparse && version != steps; }
  const std::vector<std::uint64_t>& update_bytes(StageId stage, std::uint64_t version) const {
    return version == steps ? stages[stage.value].last_update_bytes : stages[stage.value].update_bytes;
  }

  // The newest version at or below this one whose commit was a sync; 0: there was none.
  std::uint64_t last_sync(std::uint64_t version) const {
    if (sync_every == 0 || version <= sync_every) return version > steps && sync_every > 0 ? steps + 1 : 0;
    return version > steps ? steps + 1 : (version - 1) / sync_every * sync_every + 1;
  }

  // The first version above this one whose commit is a sync. REQUIRES: there are syncs.
  std::uint64_t next_sync(std::uint64_t version) const {
    const std::uint64_t next = std::max<std::uint64_t>(version, 1);
    return std::min(next + sync_every - (next - 1) % sync_every, steps + 1);
  }

  // Whom a stage exchanges tensors with: stages up to this far away. Of two neighbours one is skipped at most.
  std::uint32_t reach() const { return planned_skips > 0 || skip_after > Duration{} ? 2 : 1; }
  StageId last_stage() const { return StageId(static_cast<std::uint32_t>(stages.size()) - 1); }

  // Steps 1 … steps train; the final one only evaluates the weights, behind the last sync, if there is one.
  StepId final_step() const { return StepId(steps + (sync_every == 0 ? 1 : 2)); }
  std::uint32_t training_count(StepId step) const { return step.value <= steps ? microbatches : 0; }
  std::uint32_t evaluation_count(StepId step) const {
    if (step > final_step()) return 0;
    const bool due = step == final_step() || (evaluate_every != 0 && step.value > 1 && step.value <= steps &&
                                              (step.value - 1) % evaluate_every == 0);
    return due ? evaluation_microbatches : 0;
  }
  // Microbatches of a step: training ones are 0 … training_count-1, evaluation ones follow.
  std::uint32_t count(StepId step) const { return training_count(step) + evaluation_count(step); }
  bool is_training(StepId step, MicrobatchId m) const { return m.value < training_count(step); }
};

}  // namespace isthmus::protocol
