#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/link_matrix.h"
#include "protocol/report.h"
#include "protocol/view.h"
#include "scheduler/coordinator/decisions.h"
#include "scheduler/coordinator/events.h"
#include "scheduler/coordinator/seating.h"

namespace isthmus::coordinator {

enum class Standing : std::uint8_t {
  kWaiting,    // for a seat
  kAway,       // has a seat and is not there
  kJoining,    // is there and lacks versions
  kMember,     // serves
  kSuspected,  // serves, and is silent or cut off
  kLeaving,    // said good-bye: it serves until the step ends or somebody took over, or has gone
};

// The best rates at which a machine was seen to send and to receive, in bits per second; 0: it took no part in a
// measurement.
struct LinkRates {
  double up = 0;
  double down = 0;
};

// A run as it is at one moment, for whoever watches it: a copy that nothing changes any more. Made by
// Coordinator::status; numbers of workers are as of their newest reports.
struct RunStatus {
  struct Stage {
    std::uint32_t wished = 0;   // replicas
    std::uint32_t seated = 0;   // peers that have a seat at it
    std::uint32_t members = 0;  // of them
    bool skipped = false;       // the running step goes without it
    std::string waits;          // what it lacks, for people; empty: nothing
    std::optional<Time> until;  // what it waits for is waited for no longer then, as far as that is known
  };
  struct Worker {
    PeerId peer;
    std::string name;
    Standing standing = Standing::kAway;
    std::optional<protocol::Place> place;  // nothing: it waits
    std::optional<Queued> queued;          // only who waits
    std::optional<std::uint64_t> version;  // of its weights; nothing: none that counts
    protocol::WorkerStats stats;           // `waiting_for`: what it waits for now
    std::string does;                      // now, or why it does nothing, for people
    std::optional<Time> until;             // then somebody else is turned to, as far as that is known
    std::optional<Duration> heard;         // so long ago; nothing: not since the start
    protocol::DeviceFigures device;
    LinkRates rates;
  };
  struct Link {
    PeerId a, b;
    protocol::PairLink link;
  };

  Time at{};
  protocol::Phase phase = protocol::Phase::kRunning;
  std::string reason;  // why it stops, if it does
  StepId step;         // being computed
  std::uint32_t attempt = 0;
  std::uint64_t rollbacks = 0;
  std::optional<StepFigures> last;        // of the last step that trained
  std::optional<double> validation_loss;  // as last measured
  std::vector<Stage> stages;
  std::vector<Worker> workers;  // by peer; nobody that was revoked
  std::vector<Link> links;      // that were measured, as last time
  std::uint64_t measurements = 0;
  std::vector<Happened> events;  // the last ones, oldest first
};

}  // namespace isthmus::coordinator
