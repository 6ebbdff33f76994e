#pragma once

#include "config/problem_list.h"
#include "config/run_config.h"
#include "config/run_document.h"

namespace isthmus {

// Whether the machines of a run can be planned for: names, speeds, links between all, machines for every stage and memory
// for every layer. `run` is as read_run gives it; nothing is checked of a run without a fleet.
void check_fleet(const RunDocument& document, const RunConfig& run, ProblemList& problems);

}  // namespace isthmus
