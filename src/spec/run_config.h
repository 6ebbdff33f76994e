#pragma once

#include "spec/host_config.h"
#include "spec/run_spec.h"

namespace isthmus::spec {

// A run as its file says it: what all must agree on, and beside it what belongs to the machine that read the file. Who
// needs only one of them takes only one.
struct RunConfig : RunSpec {
  HostConfig host;
  // What this machine may send, in bytes a second.
  double uplink() const { return (host.uplink_mbps > 0 ? host.uplink_mbps : link.bandwidth_mbps) * 1e6 / 8; }
  friend bool operator==(const RunConfig&, const RunConfig&) = default;
};

}  // namespace isthmus::spec
