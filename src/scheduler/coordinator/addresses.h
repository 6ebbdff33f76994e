#pragma once

#include <map>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/view.h"
#include "scheduler/coordinator/decisions.h"

namespace isthmus::coordinator {

// Where each worker can be reached. Members are named in views as they were admitted; those that were given another
// address since then are named anew, in every view from then on, without a decision: nothing that is being summed
// depends on it.
class Addresses {
 public:
  void located(PeerId peer, const protocol::Location& location) { locations_[peer] = location; }
  protocol::Location location(PeerId peer) const;

  // What a member's report says of its sockets. True: it is elsewhere than was known, and others have to hear of it. A
  // member may change its address once in 10 s; what it says in between is heard after that.
  bool reported(const protocol::Member& admitted, const protocol::Endpoints& said, Time now);
  // The member as it can be reached now.
  protocol::Member current(const protocol::Member& admitted) const;
  struct Elsewhere {
    protocol::Endpoints endpoints;
    protocol::Location location;
    Time since{};
  };
  // Members that are not where they were admitted, or have not been in between.
  const std::map<SessionId, Elsewhere>& elsewhere() const { return elsewhere_; }
  // Who is no member any more is forgotten.
  void follow(const Decisions& decisions);

 private:
  std::map<PeerId, protocol::Location> locations_;
  std::map<SessionId, Elsewhere> elsewhere_;
};

}  // namespace isthmus::coordinator
