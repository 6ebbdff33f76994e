#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/message.h"
#include "protocol/plan.h"
#include "protocol/sample.h"
#include "scheduler/coordinator/decisions.h"

namespace isthmus::coordinator {

// Who gets which token ids, and when. Whoever has no seat at the first stage gets none, also with a key that is let in:
// held-out ids above all are nobody's business but a head's. What a peer asks for waits here until it leaves, each
// sample once and samples_max() of them at most; so a peer that asks without end costs its share of the uplink and no
// memory. All peers that wait take turns. Pure; one thread.
class TokenDesk {
 public:
  // `bytes_per_second`: the uplink that answers may fill.
  TokenDesk(const protocol::Plan& plan, double bytes_per_second);

  // False: it is refused, all of it if the peer is no head, otherwise what the run has no such sample of, what lies
  // further ahead than a head may ask, and what is too much at a time.
  bool asked(const Decisions& decisions, PeerId from, const protocol::TokenRequest& request);
  // Its connection is gone: it asks again.
  void forget(PeerId peer) { waiting_.erase(peer); }

  struct Answer {
    PeerId to;
    protocol::Sample sample;
    friend bool operator==(const Answer&, const Answer&) = default;
  };
  // What leaves now. Who lost its seat meanwhile gets nothing.
  std::vector<Answer> answers(const Decisions& decisions, Time now);
  Time next_due() const { return waiting_.empty() ? kNever : free_at_; }

 private:
  struct Waiting {
    std::deque<protocol::Sample> samples;  // in the order in which they were asked for
    std::set<protocol::Sample> known;      // the same
  };
  const protocol::Plan plan_;
  const Duration each_;  // how long an answer keeps the uplink busy
  std::map<PeerId, Waiting> waiting_;
  PeerId last_;  // who got an answer last
  Time free_at_{};
};

}  // namespace isthmus::coordinator
