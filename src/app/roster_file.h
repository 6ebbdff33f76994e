#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "config/run_config.h"
#include "scheduler/coordinator.h"

namespace isthmus {

// Who serves which place in a run, and the public key of everybody, the coordinator's included.
struct RosterFile {
  PublicKey coordinator{};
  std::vector<Seat> seats;  // peers 1 … in stage order
};

// Seats for every replica of every stage; keys still empty.
std::vector<Seat> seats_of(const RunConfig& run);
Status write_roster(const std::string& path, const RosterFile& roster);
Result<RosterFile> read_roster(const std::string& path);

}  // namespace isthmus
