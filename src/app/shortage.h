#pragma once

#include <string>

#include "base/ids.h"
#include "protocol/plan.h"
#include "spec/run_config.h"

namespace isthmus::app {

// What this machine has too little of to serve the stage, and what to do, for people on both sides; empty: it has
// enough. `folder`: where its checkpoints go, which is there.
std::string shortage(const spec::RunConfig& run, const protocol::Plan& plan, StageId stage, const std::string& folder);

}  // namespace isthmus::app
