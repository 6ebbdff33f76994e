#pragma once

#include <string>

#include "spec/run_config.h"

namespace isthmus::stage {

// What layers multiply with on this machine, where that is not what the run file says; otherwise empty.
std::string arithmetic_note(const spec::RunConfig& run);

}  // namespace isthmus::stage
