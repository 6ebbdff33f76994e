#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "app/coordinator_process.h"
#include "base/ids.h"
#include "base/result.h"
#include "relay/pass.h"
#include "relay/relay_server.h"
#include "relay/tunnel.h"

namespace isthmus::app {

// The relays of a run, for its coordinator: its own, on the port after the door's, and those of others; and who may use
// them. A run on loopback has none of its own, for all its workers are on this machine.
class RelayDesk {
 public:
  // Errors: the port cannot be had, or the key cannot be kept.
  static Result<RelayDesk> open(const CoordinatorOptions& options, std::uint64_t run_id);

  // For an hour. Its own relay's host is kAtCoordinator (app/enrolment.h).
  std::vector<relay::RelayPass> passes_for(PeerId peer) const;

 private:
  RelayDesk() = default;

  std::uint64_t run_id_ = 0;
  relay::Key key_{};
  std::unique_ptr<relay::RelayServer> own_;  // null: there is none
  std::vector<relay::RelayName> others_;
};

}  // namespace isthmus::app
