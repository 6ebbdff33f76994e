#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "scheduler/link_matrix.h"
#include "scheduler/measurements.h"
#include "scheduler/view.h"

namespace isthmus {

// Which link is measured next, and what is known of all of them: the coordinator's half of link measurements
// (router/link_probe.h has the worker's). Of the pairs that are due, the one whose measurement is oldest comes first; a
// worker has a hand in one at a time and then rests twenty times as long as it took, so that its link is left to training.
// Pure; one thread.
class LinkSurvey {
 public:
  // Every pair once in `every` at most; zero: nothing is measured.
  explicit LinkSurvey(Duration every) : every_(every) {}

  // Gives out orders and takes back those that became void. The peers that have a hand in one that is new or void.
  std::vector<PeerId> turn(const std::vector<Member>& live, Time now);
  // What the peer is to measure.
  LinkOrder order_of(PeerId peer) const;
  // Members that the peer measures a link with or that measure one with it.
  std::vector<SessionId> partners_of(PeerId peer) const;
  // What a worker says it measured; anything but an answer to its order is ignored.
  void record(PeerId from, const LinkFigures& figures, Time now);

  // The links between these peers: the better rate of the two directions, ages as of `now`.
  LinkMatrix links(const std::vector<PeerId>& peers, Time now) const;
  // The best rate at which the peer was seen to send, and to receive; 0: it took no part in a measurement. Bits per second.
  struct Rates {
    double up = 0;
    double down = 0;
  };
  Rates rates_of(PeerId peer) const;
  // The first of them, of everybody who took part in one.
  std::map<PeerId, double> uplinks() const;
  // Measurements so far.
  std::uint64_t recorded() const { return recorded_; }

 private:
  struct Order {
    LinkOrder order;
    SessionId from;
    PeerId other;
    Time since{};
  };
  struct Pair {
    Time tried{};
    std::optional<LinkFigures> figures;  // as the later of the two peers sees it
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

}  // namespace isthmus
