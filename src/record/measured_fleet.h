#pragma once

#include <string>

#include "scheduler/coordinator/run_status.h"
#include "spec/run_config.h"

namespace isthmus::record {

// What a run knows of its machines and links, as the [fleet] tables that `isthmus plan --measured` takes. Machine
// worker-N is peer N. Once a link was measured, pairs without a measurement are given the rate and latency of the run's
// [link]. Of very many workers, the first 1,024, and the 4,000 youngest measurements among them: a run file holds no
// more.
std::string measured_fleet(const spec::RunConfig& run, const coordinator::RunStatus& status);

}  // namespace isthmus::record
