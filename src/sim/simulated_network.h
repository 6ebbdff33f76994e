#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "protocol/message.h"
#include "protocol/plan.h"
#include "sim/checkers.h"
#include "sim/draws.h"
#include "sim/fault_schedule.h"
#include "sim/homes.h"

namespace isthmus::sim {

// Links that break as they are told, and the connections upon them. A message gets through only where one end has
// dialled the other and was let in; the coordinator lets in and is dialled by everybody. Some messages take the way
// through the real codec.
class SimulatedNetwork {
 public:
  struct Options {
    Duration latency{};
    double bytes_per_second = 0;
    Duration tensor{};                     // as in Cluster::Options
    std::optional<std::uint64_t> homes{};  // seed of where the workers live; nothing: all on one network
  };
  // `life_of`: which life of a process is up, 0: none. All outlive the network.
  SimulatedNetwork(const protocol::Plan& plan, const Options& options, Draws& draws, Checkers& checkers,
                   std::function<std::uint64_t(PeerId)> life_of);

  // True: with it, the connection is there.
  bool let_in(PeerId self, PeerId other);
  bool dial(PeerId self, const protocol::Member& other, protocol::Way way);
  // A fault that kept the two apart is over. True: they are connected (again).
  bool connect(PeerId a, PeerId b);
  bool connected(PeerId a, PeerId b) const;
  // Their connection is no more; a dial may make another.
  void drop(PeerId a, PeerId b) { connections_.erase(std::minmax(a, b)); }
  // They are connected, in a way that leads nowhere by now.
  bool broken(PeerId a, PeerId b) const;
  // Where the workers live; null: all on one network.
  const Homes* homes() const { return homes_ ? &*homes_ : nullptr; }
  // What a process knew of its connections died with it.
  void forget(PeerId self) { ends_.erase(self); }

  // What a fault does to the links, when it begins and when it ends.
  void change(const Fault& fault, bool begins);

  struct Arrival {
    Time due{};
    std::shared_ptr<const protocol::Message> message;
  };
  // When, if at all, and how often it arrives.
  std::vector<Arrival> send(PeerId from, PeerId to, std::shared_ptr<const protocol::Message> message, Time now);
  std::uint64_t rejected_frames() const { return rejected_frames_; }

 private:
  struct Link {
    double slowdown = 1;
    Duration latency{};
    Duration jitter{};
    double loss = 0, duplicate = 0, reorder = 0, corrupt = 0;
    Time clogged_until{};
    Time free{};         // the uplink
    Time tensor_free{};  // … of tensors, if they have one of their own
  };
  struct Dialled {
    std::uint64_t life = 0;  // of the other
    protocol::Location believed;
    protocol::Way way = protocol::Way::kNetwork;
  };
  // One process's end of its connections.
  struct End {
    std::set<PeerId> let_in;
    std::map<PeerId, Dialled> dialled;
  };
  bool gets_in(PeerId from, PeerId to) const;
  bool blocked(PeerId from, PeerId to) const { return blocked_.contains({from, to}); }
  void set_blocked(PeerId from, PeerId to, bool blocked);
  std::shared_ptr<const protocol::Message> through_the_codec(PeerId from, const protocol::Message& message,
                                                             bool damage);

  const protocol::Plan& plan_;
  const Options options_;
  Draws& draws_;
  Checkers& checkers_;
  const std::function<std::uint64_t(PeerId)> life_of_;
  std::uint32_t workers_ = 0;
  std::optional<Homes> homes_;
  std::map<PeerId, Link> links_;
  std::map<PeerId, End> ends_;
  std::map<std::pair<PeerId, PeerId>, std::pair<std::uint64_t, std::uint64_t>> connections_;  // of which lives
  std::multiset<std::pair<PeerId, PeerId>> blocked_;
  std::map<std::tuple<PeerId, PeerId, protocol::Priority>, Time> last_due_;
  std::uint64_t rejected_frames_ = 0;
};

}  // namespace isthmus::sim
