#pragma once

#include <map>
#include <set>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "router/worker_context.h"

namespace isthmus::router {

// Whether others can dial a worker.
enum class Reach : std::uint8_t { kDirect, kNone };

// Of two workers that exchange tensors, who dials. The later one, by stage and among siblings by number, if the earlier
// one can be dialled; otherwise the earlier one; otherwise both, through a relay.
enum class Way : std::uint8_t { kLaterDials, kEarlierDials, kRelay };
constexpr Way way_between(Reach earlier, Reach later) {
  if (earlier == Reach::kDirect) return Way::kLaterDials;
  return later == Reach::kDirect ? Way::kEarlierDials : Way::kRelay;
}

// Whom a worker lets in, whom it dials, and whom it cannot reach. Pure; the process, or the simulator, carries it out.
class Connections {
 public:
  explicit Connections(WorkerContext& context) : context_(context) {}

  // REQUIRES: the context still has the view before.
  void view_comes(const protocol::View& view, Time now);
  // A link to this member is to be measured, so there has to be one.
  void dial(const protocol::Member& member);
  void connected(PeerId peer);
  void lost(PeerId peer, Time now);

  // Neighbours of the running step whose connection has been down for too long, or was never made.
  std::vector<SessionId> unreachable(Time now) const;

 private:
  void know(const protocol::Member& member, Time now);
  bool dials(const protocol::Member& other) const;

  WorkerContext& context_;
  std::set<SessionId> allowed_;
  std::set<SessionId> dialled_;
  std::map<PeerId, Time> down_since_;  // lost then, or expected since then and not there yet
};

}  // namespace isthmus::router
