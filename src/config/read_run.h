#pragma once

#include "config/problem_list.h"
#include "config/run_document.h"
#include "spec/run_config.h"

namespace isthmus::config {

// The run a document describes, still without what the loader derives. A value that is missing or
// unsound leaves the default; an unsound entry of [[pipeline.stage]] leaves an empty stage, so that
// the others keep their numbers; likewise machines and links of a fleet.
spec::RunConfig read_run(const RunDocument& document, const ProblemList& problems);

}  // namespace isthmus::config
