#include "scheduler/coordinator/liveness.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace isthmus::coordinator {

void Liveness::turn(Time now) {
  if (now_ == Time{}) {
    started_ = now;
    patient_until_ = now + options_.grace;
  } else if (now - now_ > options_.pause) {
    patient_until_ = std::max(patient_until_, now + options_.grace);
  }
  now_ = now;
}

void Liveness::connected(PeerId peer) { contacts_[peer] = Contact{now_, {}, false}; }

void Liveness::disconnected(PeerId peer) {
  Contact& contact = contacts_[peer];
  if (!contact.lost) contact.lost = now_;
  contact.reported = false;
}

void Liveness::heard(PeerId peer) {
  Contact& contact = contacts_[peer];
  contact.heard = now_;
  contact.lost.reset();
}

bool Liveness::reported(PeerId peer) {
  heard(peer);
  return !std::exchange(contacts_[peer].reported, true);
}

const Liveness::Contact* Liveness::find(PeerId peer) const {
  const auto at = contacts_.find(peer);
  return at == contacts_.end() ? nullptr : &at->second;
}

bool Liveness::is_connected(PeerId peer) const {
  const Contact* contact = find(peer);
  return contact && !contact->lost;
}

// Unlike somebody of whom nothing was heard yet.
bool Liveness::is_disconnected(PeerId peer) const {
  const Contact* contact = find(peer);
  return contact && contact->lost;
}

std::optional<Time> Liveness::lost_since(PeerId peer) const {
  const Contact* contact = find(peer);
  return contact ? contact->lost : std::nullopt;
}

Time Liveness::lost_at(const protocol::Member& member) const {
  const auto lost = lost_since(member.peer);
  const Time silent_too_long = last_heard(member.peer) + silence(member);
  return std::max(patient_until_, lost ? std::min(*lost + reconnect(member), silent_too_long) : silent_too_long);
}

bool Liveness::has_reported(PeerId peer) const {
  const Contact* contact = find(peer);
  return contact && contact->reported;
}

Time Liveness::last_heard(PeerId peer) const {
  const Contact* contact = find(peer);
  return contact ? std::max(contact->heard, started_) : started_;
}

std::optional<std::vector<events::Suspected>> Liveness::judge(std::span<const protocol::Member> live) {
  std::set<SessionId> suspected;
  std::vector<events::Suspected> news;
  for (const auto& member : live) {
    const bool disconnected = is_disconnected(member.peer);
    if (!disconnected && is_prompt(member.peer)) continue;
    suspected.insert(member.session);
    if (!suspected_.contains(member.session)) news.push_back({member.peer, disconnected});
  }
  if (suspected == suspected_) return std::nullopt;
  suspected_ = std::move(suspected);
  return news;
}

std::vector<Liveness::Lost> Liveness::lost(std::span<const protocol::Member> live) {
  if (now_ < patient_until_) return {};
  std::vector<Lost> lost;
  for (const auto& member : live) {
    const Contact* contact = find(member.peer);
    const Duration silent = now_ - last_heard(member.peer);
    const bool local = member.location.is_local();
    if (contact && contact->lost && now_ - *contact->lost >= (local ? options_.reconnect : options_.remote_reconnect))
      lost.push_back({member, "its connection is lost"});
    else if (silent >= silence(member))
      lost.push_back({member, fmt::format("silent for {:.1f} s", to_seconds(silent))});
  }
  if (lost.empty()) was_patient_ = false;
  // If most of them fall silent together it is probably this machine's own link.
  if (lost.size() > 1 && lost.size() * 2 > live.size() && !was_patient_) {
    was_patient_ = true;
    patient_until_ = now_ + options_.grace;
    return {};
  }
  return lost;
}

Time Liveness::next_suspicion(std::span<const protocol::Member> live) const {
  Time next = kNever;
  for (const auto& member : live)
    if (!suspected_.contains(member.session)) next = std::min(next, last_heard(member.peer) + options_.suspicion);
  return next;
}

}  // namespace isthmus::coordinator
