#include "scheduler/planner/stage_table.h"

#include <algorithm>

#include "config/resolve_run.h"
#include "scheduler/planner/make_plan.h"
#include "spec/stage_memory.h"

namespace isthmus::planner {

StageTable::StageTable(const spec::RunConfig& run, const Fleet& fleet) : run_(run), fleet_(fleet) {
  spec::RunConfig whole = run;
  config::resolve_map(whole, {{0, run.model.layers, 1}});
  plan_ = make_plan(whole);
}

const StageNeeds& StageTable::needs(std::uint32_t first, std::uint32_t end, std::uint32_t credits) {
  const std::uint32_t layers = run_.model.layers;
  // The tail's layers are free unless the run file says otherwise.
  const std::uint32_t factored = run_.boundary.factored_layers.value_or(end == layers ? first : end);
  const std::tuple key(first == 0, end == layers, end - first, std::clamp(factored, first, end) - first, credits);
  const auto [at, added] = known_.try_emplace(key);
  if (added) {
    spec::RunConfig run = run_;
    run.boundary.factored_layers = factored;
    const double boundary = static_cast<double>(plan_.forward_bytes + plan_.backward_bytes + plan_.token_bytes);
    at->second = {planned_operations(run, fleet_, first, end),
                  spec::stage_memory(run, first, end, spec::fullest_use(run, end, credits, 1), boundary).total(),
                  run.emulated.devices ? 1.0 : static_cast<double>(parameters_of(run, first, end))};
  }
  return at->second;
}

}  // namespace isthmus::planner
