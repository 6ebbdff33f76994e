#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/result.h"
#include "record/run_folder.h"

namespace isthmus::app {

// --home, of commands that are about the worker of this user.
void add_home(CLI::App& command, record::WorkerHome& home, const std::string& what);
// Fills it in if it was not given. Error: this user has no folder of the kind.
Status find_home(record::WorkerHome& home);

}  // namespace isthmus::app
