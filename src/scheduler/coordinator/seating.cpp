#include "scheduler/coordinator/seating.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/plain_duration.h"
#include "base/plain_text.h"
#include "base/replicas_max.h"

namespace isthmus::coordinator {

namespace {

constexpr std::size_t kNameMax = 64;      // bytes
constexpr Duration kMoment = seconds(3);  // whoever waits for a seat asks every second

}  // namespace

ReplicaId free_replica(const Decisions& decisions, StageId stage) {
  std::set<ReplicaId> taken;
  for (const auto& [peer, known] : decisions.peers)
    if (const auto place = decisions.place_of(peer); place && place->stage == stage) taken.insert(place->replica);
  ReplicaId replica(0);
  while (taken.contains(replica)) ++replica.value;
  return replica;
}

Seating::Seating(const protocol::Plan& plan, Options options, const Trust& trust) : options_(options), trust_(trust) {
  for (const auto& stage : plan.stages) wished_.push_back(stage.replicas);
}

void Seating::follow(const Decisions& decisions) {
  seats_.clear();
  index_.clear();
  for (const auto& [peer, known] : decisions.peers) {
    const auto place = decisions.place_of(peer);
    if (!place) continue;
    index_.emplace(peer, seats_.size());
    seats_.push_back({peer, place->stage, place->replica, known.key});
  }
}

const Seat* Seating::find(PeerId peer) const {
  const auto at = index_.find(peer);
  return at == index_.end() ? nullptr : &seats_[at->second];
}

std::string flaw_of(const Invite& invite, std::uint64_t now_s) {
  if (invite.withdrawn) return "this invite was withdrawn; ask for another";
  if (invite.expires_s != 0 && now_s >= invite.expires_s)
    return fmt::format("this invite expired {} ago; ask for another", plain_duration(now_s - invite.expires_s));
  if (invite.uses != 0 && invite.used >= invite.uses)
    return fmt::format("this invite was for {}, and {} enrolled with it; ask for another",
                       invite.uses == 1 ? "one machine" : fmt::format("{} machines", invite.uses),
                       invite.uses == 1 ? "one has" : "as many have");
  return {};
}

Seating::Answer Seating::answer(const Decisions& decisions, const Enrolment& enrolment) const {
  const Peer* revoked = nullptr;  // it was this one
  for (const auto& [peer, known] : decisions.peers) {
    if (known.banned && known.identity == enrolment.identity)
      return Refusal{"this identity is banned from the run: " + known.reason};
    if (known.revoked) {
      if (known.identity == enrolment.identity) revoked = &known;
      continue;
    }
    if (known.identity == enrolment.identity) {
      if (known.key == enrolment.key) return peer;
      return Refusal{
          "this identity enrolled with another CURVE key; a key is made once and kept with its identity: use the "
          "folder it was made in, or a new identity"};
    }
    if (known.key == enrolment.key)
      return Refusal{"another identity enrolled with this CURVE key; use one of your own"};
  }
  if (revoked && enrolment.again)
    return Refusal{fmt::format("it was revoked: {}; start it again to enrol anew", revoked->reason)};
  if (enrolment.name.size() > kNameMax || !is_plain_text(enrolment.name))
    return Refusal{
        fmt::format("a name has at most {} bytes of UTF-8 text, without control characters; choose another", kNameMax)};
  if (decisions.peers.size() >= options_.peers_max)
    return Refusal{fmt::format("{} identities were enrolled, as many as the run takes", options_.peers_max)};
  std::optional<StageId> wish = enrolment.wish;
  if (enrolment.invite) {
    const auto invite = decisions.invites.find(*enrolment.invite);
    if (invite == decisions.invites.end()) return Refusal{"this invite is not one of this run's; ask for one"};
    if (std::string why = flaw_of(invite->second, enrolment.asked_s); !why.empty()) return Refusal{std::move(why)};
    if (invite->second.stage) wish = invite->second.stage;
  }
  if (wish && wish->value >= wished_.size()) wish.reset();
  const PeerId peer(decisions.peers.empty() ? 1 : decisions.peers.rbegin()->first.value + 1);
  return EnrolRecord{peer, enrolment.identity, enrolment.key, enrolment.name, wish, enrolment.invite};
}

const std::string* Seating::why_gone(PeerId peer) const {
  const auto at = gone_.find(peer);
  return at == gone_.end() ? nullptr : &at->second;
}

void Seating::forget(PeerId peer) {
  asked_.erase(peer);
  gone_.erase(peer);
}

// It is connected, or asked lately.
bool Seating::would_take(PeerId peer, const Liveness& liveness) const {
  if (gone_.contains(peer) || is_leaving(peer)) return false;
  if (liveness.is_connected(peer)) return true;
  const auto asked = asked_.find(peer);
  return asked != asked_.end() && liveness.now() - asked->second.at < options_.expected_back;
}

bool Seating::is_taken(PeerId peer, const Enrolment& enrolment, const Liveness& liveness) const {
  const bool is_there = liveness.is_connected(peer) && liveness.is_prompt(peer);
  const auto asked = asked_.find(peer);
  if (asked == asked_.end()) return is_there && !enrolment.again;
  return asked->second.life != enrolment.life && (is_there || liveness.now() - asked->second.at < kMoment);
}

std::optional<StageId> Seating::stage_for(const Decisions& decisions, PeerId peer) const {
  std::vector<std::uint32_t> taken(wished_.size(), 0);
  std::size_t all_taken = 0;
  for (const auto& seat : seats_) {
    if (seat.stage.value >= taken.size() || is_leaving(seat.peer)) continue;
    ++taken[seat.stage.value];
    ++all_taken;
  }
  const std::set<StageId> barred = trust_.barred(decisions, peer);
  const bool more = all_taken < std::accumulate(wished_.begin(), wished_.end(), std::size_t{0});
  const auto wish = decisions.peers.at(peer).wish;
  std::optional<StageId> empty, poorest;
  std::uint32_t most = 0;
  for (StageId stage(0); stage.value < wished_.size(); ++stage.value) {
    if (barred.contains(stage)) continue;
    const std::uint32_t has = taken[stage.value], wanted = std::min(wished_[stage.value], kReplicasMax);
    const std::uint32_t lacks = has < wanted ? wanted - has : 0;
    if (more && wish == stage && lacks > 0) return stage;
    if (!empty && has == 0) empty = stage;
    if (lacks > most) {
      most = lacks;
      poorest = stage;
    }
  }
  if (empty) return empty;
  return more ? poorest : std::nullopt;
}

// Whoever waits longest and may serve what is free.
std::optional<SeatRecord> Seating::next(const Decisions& decisions, const Liveness& liveness) const {
  for (const PeerId peer : decisions.waiting) {
    if (!would_take(peer, liveness)) continue;
    if (const auto stage = stage_for(decisions, peer)) return SeatRecord{peer, *stage, free_replica(decisions, *stage)};
  }
  return std::nullopt;
}

std::vector<UnseatRecord> Seating::given_up(const Decisions& decisions, const Liveness& liveness,
                                            const std::function<bool(const Seat&)>& is_there) const {
  const auto takers = static_cast<std::size_t>(
      std::ranges::count_if(decisions.waiting, [&](PeerId peer) { return would_take(peer, liveness); }));
  std::vector<UnseatRecord> away;
  for (const auto& seat : seats_) {
    if (away.size() == takers) break;
    if (is_there(seat)) continue;
    Time heard = liveness.last_heard(seat.peer);
    if (const auto asked = asked_.find(seat.peer); asked != asked_.end()) heard = std::max(heard, asked->second.at);
    const Duration silent = liveness.now() - heard;
    if (const std::string* why = why_gone(seat.peer))
      away.push_back({seat.peer, *why});
    else if (silent >= options_.expected_back)
      away.push_back({seat.peer, fmt::format("not heard of for {:.0f} s, and others wait", to_seconds(silent))});
  }
  return away;
}

// Nothing that is free is for this one.
std::string Seating::why_not(const Decisions& decisions, PeerId peer) const {
  std::vector<bool> served(wished_.size(), false);
  for (const auto& seat : seats_)
    if (seat.stage.value < served.size()) served[seat.stage.value] = true;
  // A stage that nobody serves would be given to it, if it might.
  for (StageId stage(0); stage.value < served.size(); ++stage.value)
    if (!served[stage.value]) return trust_.objection(decisions, peer, stage);
  return fmt::format("all {} seats of the run are taken", seats_.size());
}

std::optional<Queued> Seating::queued(const Decisions& decisions, const Liveness& liveness, PeerId peer) const {
  const auto at = std::ranges::find(decisions.waiting, peer);
  if (at == decisions.waiting.end()) return std::nullopt;
  const auto waits = [&](PeerId other) { return other == peer || would_take(other, liveness); };
  const bool full = !stage_for(decisions, peer);
  return Queued{static_cast<std::size_t>(std::count_if(decisions.waiting.begin(), at + 1, waits)),
                static_cast<std::size_t>(std::ranges::count_if(decisions.waiting, waits)),
                full ? why_not(decisions, peer) : std::string("others came first, or it has not been heard of")};
}

}  // namespace isthmus::coordinator
