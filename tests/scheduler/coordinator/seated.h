#pragma once

#include <vector>

#include "scheduler/coordinator/coordinator.h"

namespace isthmus::coordinator {

// The log in which these peers were enrolled and seated.
inline std::vector<LogRecord> seating_log(const std::vector<Seat>& seats) {
  std::vector<LogRecord> log;
  for (const auto& seat : seats) {
    protocol::PublicKey identity{};
    identity[0] = static_cast<std::uint8_t>(seat.peer.value);
    log.push_back(EnrolRecord{seat.peer, identity, seat.key, "", {}});
    log.push_back(SeatRecord{seat.peer, seat.stage, seat.replica});
  }
  return log;
}

// A coordinator that has just started on such a log.
inline Coordinator seated(const protocol::Plan& plan, const std::vector<Seat>& seats,
                          const Coordinator::Options& options) {
  Coordinator coordinator(plan, options);
  coordinator.replay(seating_log(seats));
  return coordinator;
}

}  // namespace isthmus::coordinator
