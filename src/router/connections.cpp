#include "router/connections.h"

#include <tuple>

namespace isthmus::router {

namespace {

constexpr Duration kUnreachable = seconds(2);
// The first time, the other end has to hear of this one, too, and everybody may be busy with its start.
constexpr Duration kFirstDial = seconds(10);

// Every worker listens where the coordinator sees it.
Reach reach_of(const protocol::Member&) { return Reach::kDirect; }

}  // namespace

void Connections::view_comes(const protocol::View& view, Time now) {
  // Whom this worker had nothing to say to may be reachable again without its having heard of it.
  if (view.absent != context_.view.absent)
    for (auto& [peer, since] : down_since_) since = now;
  // Nobody has tried yet to reach a new life.
  for (const auto& member : view.live)
    if (const auto down = down_since_.find(member.peer);
        down != down_since_.end() && !context_.view.find(member.session))
      down->second = now;
  for (const auto& member : view.live) know(member, now);
  for (const auto& member : view.joining) know(member, now);
  for (const auto& member : view.partners)
    if (allowed_.insert(member.session).second) context_.run(protocol::LetIn{member});
}

void Connections::know(const protocol::Member& member, Time now) {
  if (member.peer == context_.identity.peer || context_.distance(member.stage) > context_.plan.reach()) return;
  if (allowed_.insert(member.session).second) {
    context_.run(protocol::LetIn{member});
    if (!context_.connected.contains(member.peer))
      down_since_.try_emplace(member.peer, now + kFirstDial - kUnreachable);
  }
  if (dials(member)) dial(member);
}

bool Connections::dials(const protocol::Member& other) const {
  const bool later = std::tuple(other.stage, other.peer) < std::tuple(context_.identity.stage, context_.identity.peer);
  const Reach own = Reach::kDirect, others = reach_of(other);
  switch (later ? way_between(others, own) : way_between(own, others)) {
    case Way::kLaterDials:
      return later;
    case Way::kEarlierDials:
      return !later;
    case Way::kRelay:
      break;
  }
  return false;
}

void Connections::dial(const protocol::Member& member) {
  if (dialled_.insert(member.session).second) context_.run(protocol::Dial{member});
}

void Connections::connected(PeerId peer) {
  context_.connected.insert(peer);
  down_since_.erase(peer);
}

void Connections::lost(PeerId peer, Time now) {
  context_.connected.erase(peer);
  down_since_.try_emplace(peer, now);
}

std::vector<SessionId> Connections::unreachable(Time now) const {
  std::vector<SessionId> sessions;
  for (const auto& [peer, since] : down_since_) {
    if (now - since < kUnreachable) continue;
    for (const auto& member : context_.view.live)
      if (member.peer == peer &&
          (member.stage == context_.identity.stage || context_.paths.meet(member.stage, context_.identity.stage)))
        sessions.push_back(member.session);
  }
  return sessions;
}

}  // namespace isthmus::router
