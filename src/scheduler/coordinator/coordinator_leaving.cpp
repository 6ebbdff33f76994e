// Workers that say good-bye.

#include <algorithm>
#include <utility>

#include "scheduler/coordinator/coordinator.h"

namespace isthmus::coordinator {

namespace {

constexpr const char* kReason = "it left";

}  // namespace

// Somebody who will serve it is there, or was a moment ago; or is about to move there.
bool Coordinator::somebody_comes(StageId stage) const {
  if (pending_move_ && pending_move_->to == stage) return true;
  return std::ranges::any_of(seating_.seats(), [&](const Seat& seat) {
    if (seat.stage != stage || seating_.is_leaving(seat.peer) || seating_.why_gone(seat.peer)) return false;
    return decisions_.live_of(seat.peer) || is_candidate(seat) ||
           liveness_.now() - liveness_.last_heard(seat.peer) < options_.seating.expected_back;
  });
}

// Out of turn goes only who has nothing to leave behind, or will not wait. What a member did for the step counts once
// that commits, and then it goes (let_leavers_go).
void Coordinator::consider_leaving(PeerId peer) {
  const auto newest = reports_.find(peer);
  // A run that ends takes everybody along; its final weights may be nowhere else.
  if (newest == reports_.end() || phase_ != protocol::Phase::kRunning) return;
  const protocol::Leaving leaving = newest->second.leaving;
  if (leaving == protocol::Leaving::kNo) return;
  const protocol::Member* member = decisions_.live_of(peer);
  if (!member) return let_go(peer, "before it served");
  if (member->session != newest->second.session) return;
  if (leaving == protocol::Leaving::kAtOnce)
    let_go(peer, "at once: what it had begun of the step is done again");
  else if (leaving == protocol::Leaving::kEmptyHanded && !preparing_ && can_spare(*member))
    let_go(peer, "with nothing begun");
  else
    return;
  send_views_soon();
}

// Between two steps: what they did is committed, and the new step's microbatches are not on their way yet. The only
// one of its stage stays for whoever comes to take over, to give it the weights.
void Coordinator::let_leavers_go() {
  if (phase_ != protocol::Phase::kRunning) return;
  std::vector<protocol::Member> leavers;
  for (const auto& member : decisions_.live)
    if (seating_.is_leaving(member.peer)) leavers.push_back(member);
  for (const auto& member : leavers)
    if (can_spare(member) || !somebody_comes(member.stage))
      let_go(member.peer, fmt::format("after step {}", decisions_.step.value - 1));
}

void Coordinator::let_go(PeerId peer, const std::string& when) {
  const Seat seat = *seating_.find(peer);
  seating_.leaves(peer);
  seating_.forget(peer);
  if (const protocol::Member* member = decisions_.live_of(peer)) append(ExpelRecord{member->session, kReason});
  append(UnseatRecord{peer, kReason});
  happened(events::Left{peer, {seat.stage, seat.replica}, when});
  release(peer, seat.stage);
  fill_seats();
}

// All that it needs to see is the last commit.
void Coordinator::release(PeerId peer, StageId stage) {
  protocol::View view = view_of(stage, EpochId(0));
  view.released = true;
  effects_.push_back(SendView{peer, std::move(view)});
}

std::vector<CoordinatorEffect> Coordinator::good_bye(const protocol::PublicKey& identity, const std::string& why,
                                                     Time now) {
  liveness_.turn(now);
  for (const auto& [peer, known] : decisions_.peers) {
    if (known.identity != identity || known.revoked) continue;
    seating_.leaves(peer);
    if (seating_.find(peer)) let_go(peer, why.empty() ? "before it served" : "before it served: " + why);
    break;
  }
  end_if_all_left(now);
  return take();
}

}  // namespace isthmus::coordinator
