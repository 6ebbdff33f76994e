#include "router/hop_choice.h"

#include <algorithm>
#include <set>
#include <tuple>

namespace isthmus::router {

namespace {

constexpr std::size_t kSamples = 24;
// Finish times that differ by less than this part of a microbatch are equal for all that is known.
constexpr int kAlike = 4;

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Duration microseconds(std::uint64_t us) { return std::chrono::microseconds(static_cast<std::int64_t>(us)); }

}  // namespace

void LinkEstimate::sample(std::uint64_t bytes, Duration time) {
  samples_.push_back({static_cast<double>(bytes), to_seconds(time)});
  if (samples_.size() > kSamples) samples_.pop_front();
  fit();
}

void LinkEstimate::fit() {
  std::vector<double> slopes, rests;
  for (std::size_t i = 0; i < samples_.size(); ++i)
    for (std::size_t j = i + 1; j < samples_.size(); ++j)
      if (const double bytes = samples_[j].bytes - samples_[i].bytes; std::abs(bytes) > 1000)
        slopes.push_back((samples_[j].seconds - samples_[i].seconds) / bytes);
  seconds_per_byte_ = slopes.empty() ? 0 : std::max(0.0, median(slopes));
  for (const auto& s : samples_) rests.push_back(s.seconds - seconds_per_byte_ * s.bytes);
  latency_ = seconds(std::max(0.0, median(rests)));
}

std::vector<SessionId> HopChoice::set_members(const std::vector<const protocol::Member*>& members, Time now) {
  std::set<SessionId> live;
  for (const protocol::Member* member : members) live.insert(member->session);
  std::erase_if(replicas_, [&](const auto& entry) { return !live.contains(entry.first); });
  std::vector<double> ready;
  for (const auto& [session, replica] : replicas_) ready.push_back(to_seconds(std::max(now, replica.ready)));
  std::uint32_t given = 0;
  for (const auto& [session, replica] : replicas_) given = std::max(given, replica.given);
  std::vector<SessionId> newcomers;
  for (const auto session : live)
    if (auto [at, fresh] = replicas_.try_emplace(session); fresh) {
      at->second.ready = ready.empty() ? now : seconds(median(ready));
      at->second.given = given;
      newcomers.push_back(session);
    }
  return newcomers;
}

// Of a replica that has not said: the median of those that have.
Duration HopChoice::service_of(const Replica& replica) const {
  if (replica.service > Duration{}) return replica.service;
  std::vector<double> known;
  for (const auto& [session, other] : replicas_)
    if (other.service > Duration{}) known.push_back(to_seconds(other.service));
  return known.empty() ? Duration{} : seconds(median(known));
}

Time HopChoice::finish(SessionId session, std::uint64_t bytes, Time now) const {
  const Replica& replica = replicas_.at(session);
  const double wire = static_cast<double>(bytes_in_flight_ + bytes) * replica.link.seconds_per_byte();
  const Time arrives = now + replica.link.latency() / 2 + seconds(wire);
  return std::max(arrives, replica.ready) + service_of(replica);
}

SessionId HopChoice::choose(const std::vector<const protocol::Member*>& among, const std::vector<SessionId>& suspected,
                            std::uint64_t bytes, Time now, SessionId avoid) {
  const auto last_resort = [&](SessionId session) {
    return session == avoid || std::ranges::find(suspected, session) != suspected.end();
  };
  const bool finish_time = routing_ == protocol::Routing::kFinishTime;
  const auto when = [&](SessionId session) { return finish_time ? finish(session, bytes, now) : Time{}; };
  std::pair<bool, Time> first{true, kNever};
  for (const protocol::Member* member : among)
    first = std::min(first, {last_resort(member->session), when(member->session)});

  using Rank = std::tuple<std::uint32_t, std::size_t, std::uint32_t>;
  std::optional<std::pair<Rank, SessionId>> best;
  for (std::size_t i = 0; i < among.size(); ++i) {
    const SessionId session = among[i]->session;
    const Replica& replica = replicas_.at(session);
    if (last_resort(session) != first.first || when(session) > first.second + service_of(replica) / kAlike) continue;
    // Unconfirmed ones break the ties of the first moments, when nobody has said how fast it is.
    const std::size_t turn = (i + among.size() - self_.value % among.size()) % among.size();
    const std::pair candidate{
        finish_time ? Rank{replica.unconfirmed, turn, replica.given} : Rank{replica.given, turn, 0}, session};
    if (!best || candidate < *best) best = candidate;
  }
  return best->second;
}

void HopChoice::charge(SessionId session, std::uint64_t bytes, Time now) {
  Replica& replica = replicas_.at(session);
  replica.ready = finish(session, bytes, now);
  ++replica.unconfirmed;
  ++replica.given;
  bytes_in_flight_ += bytes;
}

void HopChoice::give_back(SessionId session) {
  const auto at = replicas_.find(session);
  if (at == replicas_.end()) return;
  at->second.ready -= service_of(at->second);
}

void HopChoice::confirmed(SessionId session, std::uint64_t bytes) {
  bytes_in_flight_ -= std::min(bytes, bytes_in_flight_);
  if (const auto at = replicas_.find(session); at != replicas_.end() && at->second.unconfirmed > 0)
    --at->second.unconfirmed;
}

void HopChoice::receipt(SessionId session, const protocol::Load& load, Time now) {
  const auto at = replicas_.find(session);
  if (at == replicas_.end()) return;
  Replica& replica = at->second;
  if (load.service_us > 0) replica.service = microseconds(load.service_us);
  // What is on its way to it is not in what it said.
  replica.ready = now + microseconds(load.backlog_us) + replica.unconfirmed * service_of(replica);
}

void HopChoice::measured(SessionId session, std::uint64_t bytes, Duration time) {
  if (const auto at = replicas_.find(session); at != replicas_.end()) at->second.link.sample(bytes, time);
}

}  // namespace isthmus::router
