#pragma once

#include "config/problem_list.h"
#include "config/run_document.h"
#include "spec/run_config.h"

namespace isthmus::config {

// What the schema cannot say: keys that must agree with one another, and sizes whose product must
// stay in bounds. A check is left out if a value it needs is already known to be wrong. `run` is as
// read_run gives it.
void check_run(const RunDocument& document, const spec::RunConfig& run, ProblemList& problems);

}  // namespace isthmus::config
