#include "router/connections.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace isthmus::router {

namespace {

constexpr Duration kUnreachable = seconds(2);
// Between machines it takes longer, and there may be several ways to try.
constexpr Duration kUnreachableOutside = seconds(10);
// The first time, the other end has to hear of this one, too, and everybody may be busy with its start.
constexpr Duration kFirstDial = seconds(8);
constexpr Duration kNextWay = seconds(3);

bool share_network(const protocol::Location& a, const protocol::Location& b) { return a.network == b.network; }
bool is_open(const protocol::Location& location) { return !location.outside.empty(); }

}  // namespace

bool later_dials(const protocol::Location& earlier, const protocol::Location& later) {
  return share_network(earlier, later) || is_open(earlier) || !is_open(later);
}

std::vector<protocol::Way> ways(const protocol::Location& own, const protocol::Location& other, bool relays) {
  std::vector<protocol::Way> ways;
  if (share_network(own, other)) ways.push_back(protocol::Way::kNetwork);
  if (is_open(other)) ways.push_back(protocol::Way::kOutside);
  if (relays) ways.push_back(protocol::Way::kRelay);
  return ways;
}

void Connections::view_comes(const protocol::View& view, Time now) {
  const protocol::Member* self = view.find(context_.session);
  if (!self) self = view.find_joining(context_.session);
  if (self) own_ = self->location;
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
  forget_the_gone(view);
  for (const auto& member : view.partners)
    if (allowed_.insert(member.session).second) context_.run(protocol::LetIn{member});
}

// Nobody is dialled for ever. Whom a link is measured with is named as a partner.
void Connections::forget_the_gone(const protocol::View& view) {
  std::erase_if(dialled_, [&](const auto& entry) {
    const auto partner = std::ranges::find(view.partners, entry.first, &protocol::Member::session);
    return !view.find(entry.first) && !view.find_joining(entry.first) && partner == view.partners.end();
  });
  std::erase_if(waiting_, [&](SessionId session) { return !dialled_.contains(session); });
}

void Connections::know(const protocol::Member& member, Time now) {
  if (member.peer == context_.identity.peer || context_.distance(member.stage) > context_.plan.reach()) return;
  if (allowed_.insert(member.session).second) {
    context_.run(protocol::LetIn{member});
    if (!context_.connected.contains(member.peer)) down_since_.try_emplace(member.peer, now + kFirstDial);
  }
  if (dials(member)) dial(member, now);
}

bool Connections::dials(const protocol::Member& other) const {
  const bool later = std::tuple(other.stage, other.peer) < std::tuple(context_.identity.stage, context_.identity.peer);
  return later ? later_dials(other.location, own_) : !later_dials(own_, other.location);
}

void Connections::dial(const protocol::Member& member, Time now) {
  // An earlier life of it would take turns with this one.
  std::erase_if(dialled_, [&](const auto& entry) {
    const bool earlier = entry.second.member.peer == member.peer && entry.first != member.session;
    if (earlier) waiting_.erase(entry.first);
    return earlier;
  });
  auto next = ways(own_, member.location, context_.identity.relays);
  auto [at, fresh] = dialled_.try_emplace(member.session);
  if (!fresh && at->second.ways == next && at->second.member == member) return;
  at->second = {member, std::move(next), 0, now};
  if (!context_.connected.contains(member.peer)) waiting_.insert(member.session);
  if (!at->second.ways.empty()) context_.run(protocol::Dial{member, at->second.ways.front()});
}

void Connections::tick(Time now) {
  for (const SessionId session : waiting_) {
    Dialled& dialled = dialled_.at(session);
    if (dialled.ways.size() < 2 || now - dialled.since < kNextWay) continue;
    dialled.at = (dialled.at + 1) % dialled.ways.size();
    dialled.since = now;
    context_.run(protocol::Dial{dialled.member, dialled.ways[dialled.at]});
  }
}

Time Connections::next_due() const {
  Time due = kNever;
  for (const SessionId session : waiting_)
    if (const Dialled& dialled = dialled_.at(session); dialled.ways.size() >= 2)
      due = std::min(due, dialled.since + kNextWay);
  return due;
}

void Connections::connected(PeerId peer) {
  context_.connected.insert(peer);
  down_since_.erase(peer);
  std::erase_if(waiting_, [&](SessionId session) { return dialled_.at(session).member.peer == peer; });
}

void Connections::lost(PeerId peer, Time now) {
  context_.connected.erase(peer);
  down_since_.try_emplace(peer, now);
  for (auto& [session, dialled] : dialled_)
    if (dialled.member.peer == peer && waiting_.insert(session).second) dialled.since = now;
}

Duration Connections::patience(const protocol::Member& member) const {
  return member.location.is_local() ? kUnreachable : kUnreachableOutside;
}

std::vector<SessionId> Connections::unreachable(Time now) const {
  std::vector<SessionId> sessions;
  for (const auto& [peer, since] : down_since_) {
    for (const auto& member : context_.view.live)
      if (member.peer == peer && now - since >= patience(member) &&
          (member.stage == context_.identity.stage || context_.paths.meet(member.stage, context_.identity.stage)))
        sessions.push_back(member.session);
  }
  return sessions;
}

}  // namespace isthmus::router
