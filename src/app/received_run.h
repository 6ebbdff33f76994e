#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "protocol/plan.h"
#include "spec/run_config.h"

namespace isthmus::app {

// A run as its coordinator sends it, with what this machine has otherwise.
struct ReceivedRun {
  spec::RunConfig run;
  protocol::Plan plan;
};

// What this machine has of its own.
struct OwnSettings {
  std::vector<std::string> overrides;  // "section.key=value"
  std::string host;                    // host file; empty: none
};

// The spec is the run's only if its digest is the run's id. Errors: sentences for whoever wants to join; `invite` is
// what they call theirs.
Result<ReceivedRun> receive_run(const std::string& spec, std::uint64_t run_id, const std::string& invite,
                                const OwnSettings& own);

// After so long an answer that is owed is asked for: twice the time in which an uplink moves a whole step's boundary
// traffic, at least two seconds.
Duration ask_after(const spec::RunConfig& run, const protocol::Plan& plan);

}  // namespace isthmus::app
