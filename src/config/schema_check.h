#pragma once

#include <nlohmann/json.hpp>

#include "config/problem_list.h"
#include "config/run_document.h"

namespace isthmus::config {

// configs/run.schema.json, host.schema.json, sweep.schema.json and paths.schema.json as they were when the program was
// built.
const nlohmann::json& run_schema();
const nlohmann::json& host_schema();
const nlohmann::json& sweep_schema();
const nlohmann::json& paths_schema();

// Holds a document's tree to a schema: unknown keys, missing ones, types, ranges, choices, patterns.
// The walk is our own because a general validator says neither what was seen nor what to write
// instead, and stops at the first unknown key of a table; it knows the keywords that the schemas
// use (the tests compare its verdicts with valijson's).
void check_against_schema(const toml::table& root, const nlohmann::json& schema, ProblemList& problems);

}  // namespace isthmus::config
