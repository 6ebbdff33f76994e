#pragma once

#include <vector>

#include "protocol/plan.h"
#include "spec/run_config.h"

namespace isthmus::planner {

// The plan of a resolved run. The same in every process of the run.
protocol::Plan make_plan(const spec::RunConfig& run);

// Trained numbers of a stage that holds these layers.
std::uint64_t parameters_of(const spec::RunSpec& run, std::uint32_t first_layer, std::uint32_t end_layer);

// Weights (fp32) and optimizer state of such a stage, as one replica sends them to another.
std::uint64_t state_bytes_of(const spec::RunSpec& run, std::uint32_t first_layer, std::uint32_t end_layer);

// Whether the stage's replicas take steps of their own between syncs, and the numbers of each of the tensors they agree
// on.
bool is_local(const spec::RunSpec& run, StageId stage);
std::vector<std::uint64_t> synced_tensors(const spec::RunSpec& run, StageId stage);

// Microbatches in flight at a stage.
//
// 1F1B keeps P − i, because whole activations are held for each. Here a kept input is `rank` numbers per token, so the
// memory reason is gone, and every credit less than M costs time: the event simulation (P = 8, M = 32, 100 ms,
// 80 Mb/s) loses 6 % at P − i + 2 round trips + P and nothing when uncapped. So: M, unless the run file says less.
std::uint32_t credits_of(const spec::RunSpec& run, StageId stage);

}  // namespace isthmus::planner
