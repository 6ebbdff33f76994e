#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <toml++/toml.h>

namespace isthmus {

// Reports one problem: where (null: no place), what was seen, what was expected.
using ReportProblem =
    std::function<void(const toml::node* where, const std::string& path, std::string what, std::string expected)>;

// Holds a table to the run file's schema: unknown keys, types, ranges, choices, patterns. `schema` is the JSON schema
// of this table; `path` its dotted name, "" for the file. Everything wrong is reported, in the order of the file.
void check_against_schema(const toml::table& table, const nlohmann::json& schema, const std::string& path,
                          const ReportProblem& report);

}  // namespace isthmus
