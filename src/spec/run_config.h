#pragma once

#include "spec/host_config.h"
#include "spec/run_spec.h"

namespace isthmus::spec {

// A run as its file says it: what all must agree on, and beside it what belongs to the machine that read the file. Who
// needs only one of them takes only one.
struct RunConfig : RunSpec {
  HostConfig host;
  friend bool operator==(const RunConfig&, const RunConfig&) = default;
};

}  // namespace isthmus::spec
