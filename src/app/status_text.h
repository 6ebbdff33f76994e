#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace isthmus::app {

// What `isthmus status` shows: aligned lines of at most 100 columns, each with its end. Pure; a field that is missing
// is not shown.

// Of a run, as its coordinator says it (encode_status, app/admin.h).
std::string run_text(const nlohmann::json& run);
// Of a worker, as it says it itself (app/worker_state.h).
std::string worker_text(const nlohmann::json& worker);

}  // namespace isthmus::app
