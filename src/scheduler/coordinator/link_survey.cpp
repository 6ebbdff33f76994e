#include "scheduler/coordinator/link_survey.h"

#include <algorithm>
#include <set>
#include <tuple>

namespace isthmus::coordinator {

namespace {

constexpr Duration kBetweenTurns = std::chrono::milliseconds(500);
constexpr Duration kRestAfterSilence = seconds(5);
constexpr double kRest = 20;
// A worker gives up long before; then its report was lost with its connection.
constexpr Duration kOverdue = seconds(120);

}  // namespace

protocol::LinkOrder LinkSurvey::order_of(PeerId peer) const {
  const auto at = orders_.find(peer);
  return at == orders_.end() ? protocol::LinkOrder{} : at->second.order;
}

std::vector<SessionId> LinkSurvey::partners_of(PeerId peer) const {
  std::vector<SessionId> partners;
  for (const auto& [from, order] : orders_) {
    if (from == peer) partners.push_back(order.order.to);
    if (order.other == peer) partners.push_back(order.from);
  }
  return partners;
}

bool LinkSurvey::busy(PeerId peer, Time now) const {
  if (const auto at = rests_until_.find(peer); at != rests_until_.end() && now < at->second) return true;
  return orders_.contains(peer) ||
         std::ranges::any_of(orders_, [&](const auto& entry) { return entry.second.other == peer; });
}

void LinkSurvey::rest(PeerId peer, Duration time, Time now) { rests_until_[peer] = now + time; }

std::vector<PeerId> LinkSurvey::turn(const std::vector<protocol::Member>& live, Time now) {
  std::vector<PeerId> changed;
  std::set<SessionId> sessions;
  for (const auto& member : live) sessions.insert(member.session);
  std::erase_if(orders_, [&](const auto& entry) {
    const Order& order = entry.second;
    const bool is_void =
        !sessions.contains(order.from) || !sessions.contains(order.order.to) || now - order.since >= kOverdue;
    if (is_void) changed.insert(changed.end(), {entry.first, order.other});
    return is_void;
  });
  if (every_ == Duration{} || now < next_turn_) return changed;
  next_turn_ = now + kBetweenTurns;

  std::vector<const protocol::Member*> idle;
  for (const auto& member : live)
    if (!busy(member.peer, now)) idle.push_back(&member);
  struct Due {
    bool again;
    Time tried;
    const protocol::Member* one;
    const protocol::Member* other;
  };
  std::vector<Due> due;
  for (std::size_t i = 0; i < idle.size(); ++i)
    for (std::size_t j = i + 1; j < idle.size(); ++j) {
      const auto at = pairs_.find(std::minmax(idle[i]->peer, idle[j]->peer));
      if (at == pairs_.end())
        due.push_back({false, {}, idle[i], idle[j]});
      else if (now - at->second.tried >= every_)
        due.push_back({true, at->second.tried, idle[i], idle[j]});
    }
  std::ranges::stable_sort(due, {}, [](const Due& d) { return std::tuple(d.again, d.tried); });
  std::set<PeerId> taken;
  for (const auto& [again, tried, one, other] : due) {
    if (taken.contains(one->peer) || taken.contains(other->peer)) continue;
    // Whoever would connect if they were neighbours measures.
    const bool one_is_later = std::tuple(one->stage, one->peer) > std::tuple(other->stage, other->peer);
    const protocol::Member& from = one_is_later ? *one : *other;
    const protocol::Member& to = one_is_later ? *other : *one;
    orders_[from.peer] = {{++orders_given_, to.session}, from.session, to.peer, now};
    pairs_[std::minmax(from.peer, to.peer)].tried = now;
    taken.insert({from.peer, to.peer});
    changed.insert(changed.end(), {from.peer, to.peer});
  }
  return changed;
}

void LinkSurvey::record(PeerId from, const protocol::LinkFigures& figures, Time now) {
  const auto at = orders_.find(from);
  if (at == orders_.end() || figures.order != at->second.order) return;
  const PeerId other = at->second.other;
  orders_.erase(at);
  Duration pause = kRestAfterSilence;
  if (figures.answered()) {
    Pair& pair = pairs_[std::minmax(from, other)];
    pair.figures = figures;
    // Both ends may be told to measure in turn, when they change places.
    if (from < other) std::swap(pair.figures->sent_bits_per_second, pair.figures->received_bits_per_second);
    pair.measured = now;
    ++recorded_;
    const double slower = std::min(figures.sent_bits_per_second, figures.received_bits_per_second);
    pause = seconds(std::min(3600.0, kRest * protocol::kSoundings * protocol::kSoundingBytes * 8 / slower));
  }
  for (const PeerId peer : {from, other}) rest(peer, pause, now);
}

std::vector<RunStatus::Link> LinkSurvey::measured(Time now) const {
  std::vector<RunStatus::Link> links;
  for (const auto& [key, pair] : pairs_)
    if (pair.figures)
      links.push_back({key.first,
                       key.second,
                       {std::max(pair.figures->sent_bits_per_second, pair.figures->received_bits_per_second),
                        pair.figures->latency, now - pair.measured}});
  return links;
}

std::map<PeerId, LinkRates> LinkSurvey::rates() const {
  std::map<PeerId, LinkRates> rates;
  const auto see = [&](PeerId from, PeerId to, double rate) {
    rates[from].up = std::max(rates[from].up, rate);
    rates[to].down = std::max(rates[to].down, rate);
  };
  for (const auto& [key, pair] : pairs_) {
    if (!pair.figures) continue;
    see(key.second, key.first, pair.figures->sent_bits_per_second);
    see(key.first, key.second, pair.figures->received_bits_per_second);
  }
  return rates;
}

}  // namespace isthmus::coordinator
