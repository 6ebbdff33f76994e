#pragma once

#include <cstdint>
#include <map>

#include "base/ids.h"
#include "base/rate_limit.h"
#include "base/time.h"

namespace isthmus::coordinator {

// How many of a run's events a peer may cause by what it says: 20 at once, and one a second. Beyond that they are
// counted, so that nobody fills the owner's disk and screen.
class EventBudget {
 public:
  // Whether there is room for one more.
  bool takes(PeerId peer, Time now);
  // Events of the peer that found no room since this was asked last.
  std::uint64_t left_out(PeerId peer);

 private:
  struct Account {
    RateLimit limit;
    std::uint64_t left_out = 0;
  };
  std::map<PeerId, Account> accounts_;
};

}  // namespace isthmus::coordinator
