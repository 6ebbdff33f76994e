// Replicas that leave their stage for another one, and processes that are gone for good.

#include <algorithm>
#include <utility>

#include "scheduler/coordinator/coordinator.h"

namespace isthmus::coordinator {

// Its stage would still be served, for all that is known.
bool Coordinator::can_spare(const protocol::Member& member) const {
  return std::ranges::any_of(decisions_.members(member.stage), [&](const protocol::Member& other) {
    return other.session != member.session && !liveness_.suspects(other.session) && !seating_.is_leaving(other.peer);
  });
}

// Somebody has a seat there who is, or may come back, or can be moved there from where there are two.
bool Coordinator::can_be_served(StageId stage) const {
  std::vector<std::uint32_t> seats(plan_.stages.size(), 0);
  for (const auto& seat : seating_.seats()) seats[seat.stage.value] += !seating_.why_gone(seat.peer);
  if (seats[stage.value] > 0) return true;
  if (!rebalance_ || rebalance_->has_given_up(stage)) return false;
  const SwarmLoad swarm = load(liveness_.now());
  return std::ranges::any_of(seating_.seats(), [&](const Seat& seat) {
    if (seating_.why_gone(seat.peer) || seats[seat.stage.value] < 2) return false;
    const auto seen = std::ranges::find(swarm.replicas, seat.peer, &StageReplica::peer);
    return seen == swarm.replicas.end() || Rebalance::fits(swarm, *seen, stage);
  });
}

SwarmLoad Coordinator::load(Time now) const {
  SwarmLoad load;
  load.microbatches = plan_.microbatches;
  load.step = step_time_;
  for (std::uint32_t s = 0; s < plan_.stages.size(); ++s) {
    const protocol::StagePlan& stage = plan_.stages[s];
    const std::uint64_t forward = StageId(s) == plan_.last_stage() ? 0 : plan_.token_bytes + plan_.forward_bytes,
                        backward = s == 0 ? 0 : plan_.backward_bytes;
    load.stages.push_back({stage.work, stage.state_bytes, stage.memory_bytes, forward + backward,
                           stage.local ? 0 : stage.parameters * (plan_.part_width + plan_.total_width)});
  }
  const auto rates = survey_.rates();
  for (const auto& seat : seating_.seats()) {
    if (seating_.why_gone(seat.peer) || seating_.is_leaving(seat.peer)) continue;
    if (const protocol::Member* member = decisions_.live_of(seat.peer)) {
      const auto report = reports_.find(seat.peer);
      const bool known = report != reports_.end() && report->second.session == member->session;
      const auto service = std::chrono::microseconds(known ? report->second.stats.service_us : 0);
      const auto rate = rates.find(seat.peer);
      // Of whom nothing was heard since a restart it is known only that it was there.
      load.replicas.push_back({seat.peer, seat.stage, service, true, !known || liveness_.suspects(member->session),
                               known ? report->second.device.memory_bytes : 0,
                               rate == rates.end() ? 0 : rate->second.up,
                               options_.trust.barred(decisions_, seat.peer)});
    } else {
      if (is_candidate(seat) || now - liveness_.last_heard(seat.peer) < options_.seating.expected_back)
        load.replicas.push_back({seat.peer, seat.stage, {}, false, false});
    }
  }
  return load;
}

// Also of the log that a coordinator begins with: replicas may be on their way.
void Coordinator::note_moves(const LogRecord& record) {
  if (!rebalance_) return;
  if (std::holds_alternative<InitRecord>(record)) rebalance_.emplace(*options_.rebalance, plan_.run_id);
  if (const auto* move = std::get_if<MoveRecord>(&record))
    rebalance_->moved(move->peer, move->to.stage, decisions_.stage_is_empty(move->to.stage));
  if (std::holds_alternative<CommitRecord>(record))
    for (std::uint32_t s = 0; s < plan_.stages.size(); ++s)
      if (!decisions_.stage_is_empty(StageId(s))) rebalance_->served(StageId(s));
}

// Not before the first commit: until then every stage is still on its way.
void Coordinator::consider_moves(Time now) {
  // Who was to join those that are gone may have what they need to come back.
  if (pending_move_ && decisions_.stage_is_empty(pending_move_->to)) drop_move();
  if (!rebalance_ || phase_ != protocol::Phase::kRunning || now < next_moves_ ||
      (!decisions_.last_commit && decisions_.rollbacks.empty()))
    return;
  next_moves_ = now + options_.consider_moves;
  const auto move = rebalance_->evaluate(load(now), now);
  stop_refilling(now);
  if (!move || phase_ != protocol::Phase::kRunning) return;
  const bool empty = move->reason == ReplicaMove::Reason::kEmptyStage;
  plan_move({move->peer, move->to,
             empty ? fmt::format("nobody serves stage {}", move->to)
                   : fmt::format("a step is predicted to take {:.2f} s instead of {:.2f} s",
                                 to_seconds(move->step_after), to_seconds(move->step_before))});
}

// Says so where movers were lost one after the other, and ends the run if nobody else can serve the stage.
void Coordinator::stop_refilling(Time now) {
  for (std::uint32_t s = 0; s < plan_.stages.size(); ++s) {
    const StageId stage(s);
    if (!rebalance_->has_given_up(stage)) {
      given_up_.erase(stage);
      continue;
    }
    if (!given_up_.insert(stage).second) continue;
    std::string lost;
    for (const auto& seat : seating_.seats())
      if (const std::string* why = seating_.why_gone(seat.peer);
          why && seat.stage == stage && decisions_.moved.contains(seat.peer))
        lost += fmt::format("; {}", *why);
    const std::string what = fmt::format("no more replicas move to stage {}: {} in a row were lost there{}", stage,
                                         options_.rebalance->refills, lost);
    happened(events::Warning{kCoordinator, what});
    if (!can_be_served(stage)) enter(protocol::Phase::kStopping, what + ". Continue with --resume", now);
  }
}

// Between two steps a move costs nothing that was computed. Without its new stage there is no end of the step to wait
// for.
void Coordinator::plan_move(PendingMove move) {
  if (decisions_.stage_is_empty(move.to)) {
    if (carry_out(move)) send_views();
    return;
  }
  drop_move();
  pending_move_ = std::move(move);
}

void Coordinator::drop_move() {
  if (pending_move_ && rebalance_) rebalance_->dropped(pending_move_->peer);
  pending_move_.reset();
}

void Coordinator::make_move() {
  if (pending_move_ && carry_out(*pending_move_)) pending_move_.reset();
  drop_move();
}

// True if somebody moved.
bool Coordinator::carry_out(const PendingMove& move) {
  const protocol::Member* found = phase_ == protocol::Phase::kRunning ? decisions_.live_of(move.peer) : nullptr;
  if (!found || found->stage == move.to || seating_.is_leaving(move.peer) || !can_spare(*found)) {
    if (rebalance_) rebalance_->dropped(move.peer);
    return false;
  }
  const StageId from = found->stage;
  append(MoveRecord{move.peer, {move.to, free_replica(decisions_, move.to)}, move.reason});
  happened(events::Moved{move.peer, from, move.to, move.reason});
  return true;
}

std::vector<CoordinatorEffect> Coordinator::move(PeerId peer, StageId to, const std::string& reason, Time now) {
  liveness_.turn(now);
  if (to <= plan_.last_stage()) plan_move({peer, to, reason});
  return take();
}

std::vector<CoordinatorEffect> Coordinator::process_gone(PeerId peer, const std::string& what, Time now) {
  auto effects = process_ended(peer, now);
  const auto place = place_of(peer);
  if (!place || !seating_.gone(peer, what)) return effects;
  happened(events::Gone{peer, what});
  next_moves_ = now;
  free_seats();
  fill_seats();
  if (!can_be_served(place->stage))
    enter(protocol::Phase::kStopping, fmt::format("{}; nobody else can serve its stage. Continue with --resume", what),
          now);
  end_if_all_left(now);
  for (auto& effect : take()) effects.push_back(std::move(effect));
  return effects;
}

}  // namespace isthmus::coordinator
