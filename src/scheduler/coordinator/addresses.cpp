#include "scheduler/coordinator/addresses.h"

namespace isthmus::coordinator {

namespace {

// Everybody near is told, and dials anew: whoever names another address all the time gains nothing.
constexpr Duration kPause = seconds(10);

}  // namespace

protocol::Location Addresses::location(PeerId peer) const {
  const auto at = locations_.find(peer);
  return at == locations_.end() ? protocol::Location{} : at->second;
}

bool Addresses::reported(const protocol::Member& admitted, const protocol::Endpoints& said, Time now) {
  const protocol::Member known = current(admitted);
  const protocol::Location location = this->location(admitted.peer);
  if (known.endpoints == said && known.location == location) return false;
  const auto before = elsewhere_.find(admitted.session);
  if (before != elsewhere_.end() && now - before->second.since < kPause) return false;
  elsewhere_[admitted.session] = {said, location, now};
  return true;
}

void Addresses::follow(const Decisions& decisions) {
  std::erase_if(elsewhere_, [&](const auto& entry) { return !decisions.is_live(entry.first); });
}

protocol::Member Addresses::current(const protocol::Member& admitted) const {
  protocol::Member member = admitted;
  if (const auto at = elsewhere_.find(admitted.session); at != elsewhere_.end()) {
    member.endpoints = at->second.endpoints;
    member.location = at->second.location;
  }
  return member;
}

}  // namespace isthmus::coordinator
