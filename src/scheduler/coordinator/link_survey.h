#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/measurements.h"
#include "protocol/view.h"
#include "scheduler/coordinator/run_status.h"

namespace isthmus::coordinator {

// Which link is measured next, and what is known of all of them: the coordinator's half of link measurements
// (router/link_probe.h has the worker's). Of the pairs that are due, the one whose measurement is oldest comes first; a
// worker has a hand in one at a time and then rests twenty times as long as it took, so that its link is left to
// training. Pure; one thread.
class LinkSurvey {
 public:
  // Every pair once in `every` at most; zero: nothing is measured.
  explicit LinkSurvey(Duration every) : every_(every) {}

  // Gives out orders and takes back those that became void. The peers that have a hand in one that is new or void.
  std::vector<PeerId> turn(const std::vector<protocol::Member>& live, Time now);
  // What the peer is to measure.
  protocol::LinkOrder order_of(PeerId peer) const;
  // Members that the peer measures a link with or that measure one with it.
  std::vector<SessionId> partners_of(PeerId peer) const;
  // What a worker says it measured; anything but an answer to its order is ignored.
  void record(PeerId from, const protocol::LinkFigures& figures, Time now);

  // All that were measured: the better rate of the two directions, ages as of `now`.
  std::vector<RunStatus::Link> measured(Time now) const;
  // Of everybody who took part in a measurement.
  std::map<PeerId, LinkRates> rates() const;
  // Measurements so far.
  std::uint64_t recorded() const { return recorded_; }

 private:
  struct Order {
    protocol::LinkOrder order;
    SessionId from;
    PeerId other;
    Time since{};
  };
  struct Pair {
    Time tried{};
    std::optional<protocol::LinkFigures> figures;  // as the later of the two peers sees it
    Time measured{};
  };
  using Key = std::pair<PeerId, PeerId>;

  bool busy(PeerId peer, Time now) const;
  void rest(PeerId peer, Duration time, Time now);

  Duration every_;
  std::uint32_t orders_given_ = 0;
  std::map<PeerId, Order> orders_;  // by who measures
  std::map<Key, Pair> pairs_;       // the lower peer first
  std::map<PeerId, Time> rests_until_;
  std::uint64_t recorded_ = 0;
  Time next_turn_{};
};

}  // namespace isthmus::coordinator
