#pragma once

#include <nlohmann/json.hpp>

#include "config/problem_list.h"
#include "config/run_document.h"

namespace isthmus {

// configs/run.schema.json as it was when the program was built.
const nlohmann::json& run_schema();

// Holds a document to the schema: unknown keys, missing ones, types, ranges, choices, patterns. The
// walk is our own because a general validator says neither what was seen nor what to write instead,
// and stops at the first unknown key of a table; it knows the keywords that run.schema.json uses
// (the tests compare its verdicts with valijson's).
void check_against_schema(const RunDocument& document, ProblemList& problems);

}  // namespace isthmus
