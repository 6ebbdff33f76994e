#pragma once

#include <algorithm>
#include <chrono>

#include "base/time.h"

namespace isthmus::transport {

// ZeroMQ reconnects by itself after a broken connection, but not after a refused handshake, which a peer gives until
// it has heard of this one: then the sockets are made anew, soon and with growing pauses. They also are when there is
// no answer at all, with more patience, for a handshake takes several round trips.
struct DialPatience {
  Duration silence = std::chrono::seconds(2);
  Duration refusal = std::chrono::milliseconds(100);
  // After one or the other.
  DialPatience longer(bool refused) const {
    constexpr Duration kMax = std::chrono::seconds(8);
    return {refused ? silence : std::min(2 * silence, kMax), refused ? std::min(2 * refusal, kMax) : refusal};
  }
};

}  // namespace isthmus::transport
