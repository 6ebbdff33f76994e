#pragma once

#include <map>
#include <set>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "router/worker_context.h"

namespace isthmus::router {

// Of two workers that exchange tensors, who dials: the later one, by stage and among siblings by number, unless only it
// can be dialled itself.
bool later_dials(const protocol::Location& earlier, const protocol::Location& later);
// How whoever dials gets to the other, best first. A way that should be good may not be: machines with one address may
// be guests of one network that keeps them apart, or customers of one provider. Empty: there is none.
std::vector<protocol::Way> ways(const protocol::Location& own, const protocol::Location& other, bool relays);

// Whom a worker lets in, whom it dials and how, and whom it cannot reach. Pure; the process, or the simulator, carries
// it out.
class Connections {
 public:
  explicit Connections(WorkerContext& context) : context_(context) {}

  // REQUIRES: the context still has the view before.
  void view_comes(const protocol::View& view, Time now);
  // A link to this member is to be measured, so there has to be one.
  void dial(const protocol::Member& member, Time now);
  void connected(PeerId peer);
  void lost(PeerId peer, Time now);
  // Tries the next way to whoever has not been reached for a while.
  void tick(Time now);
  Time next_due() const;

  // Neighbours of the running step whose connection has been down for too long, or was never made.
  std::vector<SessionId> unreachable(Time now) const;

 private:
  // A life of a worker that this one dials.
  struct Dialled {
    protocol::Member member;
    std::vector<protocol::Way> ways;
    std::size_t at = 0;  // of them
    Time since{};        // this way is tried, while it is not connected
  };
  void know(const protocol::Member& member, Time now);
  void forget_the_gone(const protocol::View& view);
  bool dials(const protocol::Member& other) const;
  Duration patience(const protocol::Member& member) const;

  WorkerContext& context_;
  protocol::Location own_;  // as the newest view says
  std::set<SessionId> allowed_;
  std::map<SessionId, Dialled> dialled_;
  std::set<SessionId> waiting_;        // those that have no connection
  std::map<PeerId, Time> down_since_;  // lost then, or expected since then and not there yet
};

}  // namespace isthmus::router
