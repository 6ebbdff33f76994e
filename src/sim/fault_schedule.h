#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/plan.h"

namespace isthmus::sim {

enum class FaultKind : std::uint8_t {
  kBandwidth,   // its uplink gets slower
  kLatency,     // what it sends takes longer
  kJitter,      // … by a random time
  kLoss,        // a share of what it sends is lost
  kDuplicate,   // … comes twice
  kReorder,     // … comes late, after what was sent later
  kCorrupt,     // … has a flipped bit
  kPartition,   // two processes cannot reach each other
  kOneWay,      // one cannot reach the other
  kClog,        // nothing it sends leaves; then all of it at once
  kCut,         // its connections break and are made again
  kFreeze,      // SIGSTOP … SIGCONT
  kCrash,       // kill -9, in the middle of whatever it does; started again later
  kStageCrash,  // every replica of a stage at once
  kSlow,        // its device gets slower
  kCoordinatorCrash,
  kCoordinatorFreeze,
  kDiskFull,
  kMove,   // it is told to serve another stage from now on
  kLeave,  // it says good-bye, and comes back later
  // Of homes (sim/homes.h):
  kRelay,    // no relay is up
  kAddress,  // its home gets another address, and its connections break
  kSleep,    // it stands still, and when it goes on its connections are no more
};
inline constexpr std::size_t kFaultKinds = static_cast<std::size_t>(FaultKind::kSleep) + 1;
inline constexpr std::size_t kFaultKindsOfAll = static_cast<std::size_t>(FaultKind::kRelay);
const char* name_of(FaultKind kind);
// Nothing if there is no such fault.
std::vector<FaultKind> fault_kinds(const std::string& comma_separated, std::string& unknown);

struct Fault {
  FaultKind kind;
  Time start{};
  Duration length{};
  PeerId peer;          // whom it befalls; kCoordinator where that makes sense
  PeerId other;         // partition, one-way
  StageId stage;        // stage crash; move: where to
  double strength = 0;  // probability, factor, or seconds, by kind
  std::string text() const;
};

// Faults in [begin, end), a pure function of the seed: a few bad links, and now and then something that breaks.
std::vector<Fault> draw_faults(const protocol::Plan& plan, std::uint64_t seed, const std::vector<FaultKind>& kinds,
                               std::uint32_t count, Time begin, Time end);

}  // namespace isthmus::sim
