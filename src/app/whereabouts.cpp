#include "app/whereabouts.h"

#include "transport/address.h"

namespace isthmus::app {

namespace {

// The same ports, at the address where the worker is seen.
std::optional<protocol::Endpoints> seen_at(const std::string& address, const protocol::Endpoints& said) {
  const auto control = transport::read_address(said.control), bulk = transport::read_address(said.bulk);
  if (!control || !bulk) return std::nullopt;
  return protocol::Endpoints{transport::Address{address, control->port}.endpoint(),
                             transport::Address{address, bulk->port}.endpoint()};
}

constexpr Duration kLookAtOthers = seconds(10);

}  // namespace

void Whereabouts::remember(const protocol::Member& member) { known_[member.peer].location = member.location; }

void Whereabouts::seen(PeerId peer, const std::string& address) {
  const std::string plain = transport::plain_address(address);
  Known& known = known_[peer];
  if (known.address == plain) return;
  known.address = plain;
  known.said = {};
  known.look_again = {};
}

std::optional<Whereabouts::Located> Whereabouts::reported(PeerId peer, const protocol::Report& report,
                                                          const protocol::PublicKey& key, Time now) {
  const auto at = known_.find(peer);
  if (at == known_.end() || at->second.address.empty()) return std::nullopt;
  Known& known = at->second;
  if (known.said != report.endpoints && now >= known.look_again) {
    known.said = report.endpoints;
    look(peer, known, key, now);
  }
  if (known.location) return Located{peer, *known.location, report};
  known.held = report;
  return std::nullopt;
}

// What was known of it counts until it is found out.
void Whereabouts::look(PeerId peer, Known& known, const protocol::PublicKey& key, Time now) {
  const auto outside = seen_at(known.address, known.said);
  if (transport::is_loopback(known.address) || !outside) {
    known.location = protocol::Location{transport::network_of(known.address), {}};
    return;
  }
  known.look_again = now + kLookAtOthers;
  if (!dial_back_) dial_back_.emplace(transport::DialBack::Options{keys_});
  dial_back_->begin(peer, *outside, key);
}

std::vector<Whereabouts::Located> Whereabouts::poll(Time now) {
  std::vector<Located> found;
  if (!dial_back_) return found;
  for (const auto& result : dial_back_->poll(now)) {
    const auto at = known_.find(result.peer);
    if (at == known_.end()) continue;
    Known& known = at->second;
    if (seen_at(known.address, known.said) != result.endpoints) continue;
    known.location = {transport::network_of(known.address), result.answered ? result.endpoints : protocol::Endpoints{}};
    if (known.held) found.push_back({result.peer, *known.location, std::move(*known.held)});
    known.held.reset();
  }
  return found;
}

}  // namespace isthmus::app
