#pragma once

#include <cstdint>
#include <map>
#include <tuple>

#include "protocol/plan.h"
#include "scheduler/planner/fleet.h"
#include "scheduler/planner/placement.h"
#include "spec/run_config.h"

namespace isthmus::planner {

// What layers cost as a stage with one replica, looked up once for all stages that are alike.
class StageTable {
 public:
  // REQUIRES: both outlive this; the run is resolved but for its map.
  StageTable(const spec::RunConfig& run, const Fleet& fleet);

  // The plan of the run as one stage.
  const protocol::Plan& one_stage() const { return plan_; }
  const StageNeeds& needs(std::uint32_t first, std::uint32_t end, std::uint32_t credits);

 private:
  const spec::RunConfig& run_;
  const Fleet& fleet_;
  protocol::Plan plan_;
  std::map<std::tuple<bool, bool, std::uint32_t, std::uint32_t, std::uint32_t>, StageNeeds> known_;
};

}  // namespace isthmus::planner
