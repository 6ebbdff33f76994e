// Replicas that leave their stage for another one, and processes that are gone for good.

#include <algorithm>
#include <utility>

#include "scheduler/coordinator.h"

namespace isthmus {

// Its stage would still be served, for all that is known.
bool Coordinator::can_spare(const Member& member) const {
  return std::ranges::any_of(decisions_.members(member.stage), [&](const Member& other) {
    return other.session != member.session && !suspected_.contains(other.session);
  });
}

// Somebody has a seat there who is, or may come back, or can be moved there from where there are two.
bool Coordinator::can_be_served(StageId stage) const {
  std::vector<std::uint32_t> seats(plan_.stages.size(), 0);
  for (const auto& seat : seats_) seats[seat.stage.value] += !gone_.contains(seat.peer);
  return seats[stage.value] > 0 || (rebalance_ && std::ranges::any_of(seats, [](auto n) { return n > 1; }));
}

SwarmLoad Coordinator::load(Time now) const {
  SwarmLoad load;
  load.microbatches = plan_.microbatches;
  load.step = step_time_;
  for (const auto& stage : plan_.stages) load.stages.push_back({stage.work, stage.state_bytes});
  for (const auto& seat : seats_) {
    if (gone_.contains(seat.peer)) continue;
    if (const Member* member = decisions_.live_of(seat.peer)) {
      const auto report = reports_.find(seat.peer);
      const bool known = report != reports_.end() && report->second.session == member->session;
      const auto service = std::chrono::microseconds(known ? report->second.stats.service_us : 0);
      load.replicas.push_back({seat.peer, seat.stage, service, true, suspected_.contains(member->session)});
    } else {
      const auto contact = contacts_.find(seat.peer);
      const Time heard = contact == contacts_.end() ? started_ : std::max(contact->second.heard, started_);
      if (is_candidate(seat) || now - heard < options_.expected_back) load.replicas.push_back({seat.peer, seat.stage, {}, false, false});
    }
  }
  return load;
}

// Not before the first commit: until then every stage is still on its way.
void Coordinator::consider_moves(Time now) {
  if (!rebalance_ || phase_ != Phase::kRunning || now < next_moves_ || (!decisions_.last_commit && decisions_.rollbacks.empty())) return;
  next_moves_ = now + options_.consider_moves;
  const auto move = rebalance_->evaluate(load(now), now);
  if (!move) return;
  const bool empty = move->reason == ReplicaMove::Reason::kEmptyStage;
  plan_move({move->peer, move->to,
             empty ? fmt::format("nobody serves stage {}", move->to)
                   : fmt::format("a step is predicted to take {:.2f} s instead of {:.2f} s", to_seconds(move->step_after), to_seconds(move->step_before))});
}

// Between two steps a move costs nothing that was computed. Without its new stage there is no end of the step to wait for.
void Coordinator::plan_move(PendingMove move) {
  pending_move_ = std::move(move);
  if (decisions_.stage_is_empty(pending_move_->to) && make_move()) send_views();
}

// True if somebody moved.
bool Coordinator::make_move() {
  const auto move = std::exchange(pending_move_, std::nullopt);
  const Member* found = move && phase_ == Phase::kRunning ? decisions_.live_of(move->peer) : nullptr;
  if (!found || found->stage == move->to || !can_spare(*found)) return false;
  const StageId from = found->stage;
  ReplicaId replica(0);
  while (std::ranges::any_of(seats_, [&](const Seat& seat) { return seat.stage == move->to && seat.replica == replica; })) ++replica.value;
  append(MoveRecord{move->peer, {move->to, replica}, move->reason});
  const std::size_t place = seat_index_.at(move->peer);
  newest_[place] = nullptr;
  outsiders_.erase(place);
  reports_.erase(move->peer);
  happened("moved", move->peer, fmt::format("from stage {} to stage {}: {}", from, move->to, move->reason));
  return true;
}

std::vector<CoordinatorEffect> Coordinator::move(PeerId peer, StageId to, const std::string& reason, Time now) {
  turn(now);
  if (to <= plan_.last_stage()) plan_move({peer, to, reason});
  return take();
}

std::vector<CoordinatorEffect> Coordinator::process_gone(PeerId peer, const std::string& what, Time now) {
  auto effects = process_ended(peer, now);
  const Seat* seat = seat_of(peer);
  if (!seat || !gone_.insert(peer).second) return effects;
  happened("gone", peer, what);
  next_moves_ = now;
  if (!can_be_served(seat->stage)) enter(Phase::kStopping, fmt::format("{}; its stage has no other replica. Continue with --resume", what), now);
  end_if_all_left(now);
  for (auto& effect : take()) effects.push_back(std::move(effect));
  return effects;
}

}  // namespace isthmus
