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

std::vector<CoordinatorEffect> Coordinator::enrol(const Enrolment& enrolment, Time now) {
  liveness_.turn(now);
  const auto refuse = [&](std::string reason) {
    effects_.push_back(TurnAway{enrolment.identity, std::move(reason)});
    return take();
  };
  if (phase_ != protocol::Phase::kRunning) return refuse("the run is over; there is nothing left to take part in");
  Seating::Answer answer = seating_.answer(decisions_, enrolment);
  if (auto* refusal = std::get_if<Seating::Refusal>(&answer)) return refuse(std::move(refusal->reason));
  const auto* fresh = std::get_if<EnrolRecord>(&answer);
  const PeerId peer = fresh ? fresh->peer : std::get<PeerId>(answer);
  // A home folder that was copied: two that take turns would drive each other out for ever. One that has died loses its
  // connection at once, or is silent for longer than this before it can be back.
  if (!fresh && !enrolment.again && liveness_.is_connected(peer) && liveness_.is_prompt(peer))
    return refuse(
        fmt::format("this identity takes part already, as worker {}; one home folder is one worker: end that one "
                    "(`isthmus leave`), or join from another folder (--home)",
                    peer));
  if (fresh) append(*fresh);
  if (!enrolment.again) seating_.is_back(peer);
  seating_.asked(peer, now);
  effects_.push_back(LetIn{peer, enrolment.identity, enrolment.key});
  if (fresh) happened(events::Enrolled{peer, enrolment.name});
  fill_seats();
  return take();
}

std::vector<CoordinatorEffect> Coordinator::revoke(PeerId peer, const std::string& reason, bool ban, Time now) {
  liveness_.turn(now);
  const auto known = decisions_.peers.find(peer);
  if (known == decisions_.peers.end() || known->second.banned || (known->second.revoked && !ban)) return take();
  if (const protocol::Member* member = decisions_.live_of(peer))
    expel(protocol::Member(*member), ban ? "banned: " + reason : "revoked: " + reason);
  append(RevokeRecord{peer, reason, ban});
  liveness_.forget(peer);
  seating_.forget(peer);
  happened(events::Revoked{peer, reason, ban});
  effects_.push_back(ShutOut{peer});
  fill_seats();
  end_if_all_left(now);
  return take();
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
  if (phase_ != protocol::Phase::kRunning) return;
  while (const auto seat = seating_.next(decisions_, liveness_)) {
    append(*seat);
    const protocol::Place place{seat->stage, seat->replica};
    effects_.push_back(TakeSeat{seat->peer, place});
    happened(events::Seated{seat->peer, place});
  }
}

}  // namespace isthmus::coordinator
