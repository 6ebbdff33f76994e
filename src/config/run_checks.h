#pragma once

#include "config/problem_list.h"
#include "config/run_config.h"
#include "config/run_document.h"

namespace isthmus {

// What the schema cannot say: keys that must agree with one another, and sizes whose product must
// stay in bounds. A check is left out if a value it needs is already known to be wrong. `run` is as
// read_run gives it.
void check_run(const RunDocument& document, const RunConfig& run, ProblemList& problems);

}  // namespace isthmus
