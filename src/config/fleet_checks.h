#pragma once

#include "config/problem_list.h"
#include "config/run_document.h"
#include "spec/run_config.h"

namespace isthmus::config {

// Whether the machines of a run can be planned for: names, speeds, links between all, machines for every stage and
// memory for every layer. `run` is as read_run gives it; nothing is checked of a run without a fleet.
void check_fleet(const RunDocument& document, const spec::RunConfig& run, ProblemList& problems);

}  // namespace isthmus::config
