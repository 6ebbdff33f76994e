// Who may take part, and where: what Seating decides, in records and effects.

#include <fmt/format.h>

#include <utility>

#include "scheduler/coordinator/coordinator.h"

namespace isthmus::coordinator {

std::vector<CoordinatorEffect> Coordinator::invite(const InviteRecord& invite, Time now) {
  liveness_.turn(now);
  append(invite);
  happened(events::Invited{invite.uses, invite.stage});
  return take();
}

std::vector<CoordinatorEffect> Coordinator::withdraw(const protocol::PublicKey& key, Time now) {
  liveness_.turn(now);
  const auto known = decisions_.invites.find(key);
  if (known == decisions_.invites.end() || known->second.withdrawn) return take();
  append(WithdrawRecord{key});
  happened(events::Withdrawn{known->second.used});
  return take();
}

// Also after the last commit, if a stage's final weights are with somebody who is away: the last steps went without it.
bool Coordinator::gives_seats() const {
  bool lacks_one = false;
  for (std::uint32_t s = 0; s < plan_.stages.size(); ++s)
    lacks_one = lacks_one || decisions_.stage_is_empty(StageId(s));
  return phase_ == protocol::Phase::kRunning || (phase_ == protocol::Phase::kFinished && !ended_ && lacks_one);
}

std::vector<CoordinatorEffect> Coordinator::enrol(const Enrolment& enrolment, Time now) {
  liveness_.turn(now);
  const auto refuse = [&](std::string reason, bool for_a_moment = false) {
    effects_.push_back(TurnAway{enrolment.identity, std::move(reason), for_a_moment});
    return take();
  };
  constexpr const char* kOver = "the run is over; there is nothing left to take part in";
  if (!gives_seats()) return refuse(kOver);
  Seating::Answer answer = seating_.answer(decisions_, enrolment);
  if (auto* refusal = std::get_if<Seating::Refusal>(&answer)) return refuse(std::move(refusal->reason));
  const auto* fresh = std::get_if<EnrolRecord>(&answer);
  if (fresh && phase_ != protocol::Phase::kRunning) return refuse(kOver);
  const PeerId peer = fresh ? fresh->peer : std::get<PeerId>(answer);
  if (!fresh && seating_.is_taken(peer, enrolment, liveness_))
    return refuse(fmt::format("this identity takes part already, as worker {}; one home folder is one worker: end that "
                              "one (`isthmus leave`), or join from another folder (--home)",
                              peer),
                  true);
  if (fresh) append(*fresh);
  if (!enrolment.again) seating_.is_back(peer);
  seating_.asked(peer, enrolment.life, now);
  effects_.push_back(LetIn{peer, enrolment.identity, enrolment.key});
  if (fresh) happened(events::Enrolled{peer, enrolment.name});
  fill_seats();
  return take();
}

std::vector<CoordinatorEffect> Coordinator::revoke(PeerId peer, const std::string& reason, bool ban, Time now) {
  liveness_.turn(now);
  const auto known = decisions_.peers.find(peer);
  if (known == decisions_.peers.end() || known->second.banned || (known->second.revoked && !ban)) return take();
  shut_out(peer, reason, ban);
  end_if_all_left(now);
  return take();
}

void Coordinator::shut_out(PeerId peer, const std::string& reason, bool ban) {
  if (const protocol::Member* member = decisions_.live_of(peer))
    expel(protocol::Member(*member), ban ? "banned: " + reason : "revoked: " + reason);
  append(RevokeRecord{peer, reason, ban});
  liveness_.forget(peer);
  seating_.forget(peer);
  happened(events::Revoked{peer, reason, ban});
  effects_.push_back(ShutOut{peer});
  fill_seats();
}

// A seat of somebody who has not been there for long is given up once another would take it.
void Coordinator::free_seats() {
  if (phase_ != protocol::Phase::kRunning) return;
  const auto is_there = [&](const Seat& seat) { return decisions_.live_of(seat.peer) || is_candidate(seat); };
  for (const UnseatRecord& unseat : seating_.given_up(decisions_, liveness_, is_there)) {
    append(unseat);
    seating_.forget(unseat.peer);
    happened(events::Unseated{unseat.peer, unseat.reason});
  }
}

void Coordinator::fill_seats() {
  if (!gives_seats()) return;
  while (const auto seat = seating_.next(decisions_, liveness_)) {
    append(*seat);
    const protocol::Place place{seat->stage, seat->replica};
    effects_.push_back(TakeSeat{seat->peer, place});
    happened(events::Seated{seat->peer, place});
  }
}

}  // namespace isthmus::coordinator
