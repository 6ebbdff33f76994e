// What the coordinator tells its workers.

#include <algorithm>
#include <utility>

#include "scheduler/coordinator/coordinator.h"

namespace isthmus::coordinator {

namespace {

// A worker that is rebuilt asks again for what does not fit into one view.
constexpr std::size_t kReplayMax = 1024;

}  // namespace

protocol::View Coordinator::view_of(StageId stage, EpochId known) const {
  const std::uint32_t reach = plan_.reach();
  const StageId first(stage.value - std::min(stage.value, reach)),
      last(std::min(stage.value + reach, plan_.last_stage().value));
  const auto is_near = [&](StageId other) { return first <= other && other <= last; };
  protocol::View view;
  view.epoch = decisions_.epoch;
  view.step = decisions_.step;
  view.attempt = decisions_.attempt;
  Membership membership = decisions_.membership(first, last, known);
  view.since = membership.since;
  view.live = std::move(membership.joined);
  for (auto& member : view.live) member = addresses_.current(member);
  for (const auto& [session, address] : addresses_.elsewhere())
    if (const protocol::Member* member = decisions_.find(session); member && is_near(member->stage))
      if (!view.find(session)) view.live.push_back(addresses_.current(*member));
  view.gone = std::move(membership.left);
  view.absent = decisions_.absent;
  view.last_commit = decisions_.last_commit;
  view.preparing = preparing_;
  view.whole = vault_takes_ != 0 ? vault_takes_ : decisions_.whole;
  view.checkpointed.assign(decisions_.checkpointed.size(), 0);
  for (std::uint32_t s = first.value; s <= last.value; ++s) view.checkpointed[s] = decisions_.checkpointed[s];
  view.phase = phase_;
  view.reason = reason_;
  for (const auto session : liveness_.suspected())
    if (const protocol::Member* member = decisions_.find(session); member && is_near(member->stage))
      view.suspected.push_back(session);
  for (const auto& member : decisions_.members(first, last))
    if (seating_.is_leaving(member.peer)) view.leaving.push_back(member.session);
  for (const PeerId peer : outsiders_)
    if (const Seat& seat = *seating_.find(peer); is_near(seat.stage) && is_candidate(seat))
      view.joining.push_back(member_of(seat, reports_.at(peer)));
  view.rollbacks = decisions_.rollbacks;
  return view;
}

void Coordinator::send_view(const Seat& seat, SharedViews& shared) {
  const auto place = seating_.index(seat);
  const protocol::Report* report = newest_[place];
  const EpochId known = report && report->stage == seat.stage ? report->epoch : EpochId(0);
  auto made = shared.find({seat.stage, known});
  if (made == shared.end()) made = shared.emplace(std::pair(seat.stage, known), view_of(seat.stage, known)).first;
  protocol::View view = made->second;
  if (const auto at = decisions_.last_session.find(seat.peer); at != decisions_.last_session.end())
    view.last_session = at->second;
  if (const auto at = decisions_.moved.find(seat.peer); at != decisions_.moved.end()) view.moved = at->second;
  view.measure = survey_.order_of(seat.peer);
  for (const auto session : survey_.partners_of(seat.peer))
    if (const protocol::Member* partner = decisions_.find(session))
      view.partners.push_back(addresses_.current(*partner));
  if (preparing_)
    if (const auto at = ledger_.entries().find(view.last_session); at != ledger_.entries().end())
      view.owners.emplace(at->first, at->second.done);
  if (seat.stage == StageId(0)) {
    view.head_owner.assign(decisions_.head_owner.size(), kNoSession);
    view.head_again.assign(decisions_.head_owner.size(), false);
    for (std::size_t m = 0; m < decisions_.head_owner.size(); ++m)
      if (view.last_session != kNoSession && decisions_.head_owner[m] == view.last_session) {
        view.head_owner[m] = view.last_session;
        view.head_again[m] = decisions_.head_again[m];
      }
    if (const auto at = decisions_.dealt_again.find(view.last_session); at != decisions_.dealt_again.end())
      view.dealt_again = at->second;
  }
  if (outsiders_.contains(seat.peer) && is_candidate(seat) && decisions_.stage_is_empty(seat.stage)) {
    const std::uint64_t version = report->version;
    view.vaulted = std::min(vault_has_[seat.stage.value], decisions_.checkpointed[seat.stage.value]);
    for (const auto& commit : decisions_.commits)
      if (commit.step.value > version && view.replay.size() < kReplayMax) view.replay.push_back(commit);
  }
  effects_.push_back(SendView{seat.peer, std::move(view)});
}

void Coordinator::send_view(PeerId peer) {
  SharedViews shared;
  if (const Seat* seat = seating_.find(peer)) send_view(*seat, shared);
}

void Coordinator::send_views() {
  round_wanted_ = false;
  next_round_ =
      liveness_.now() + options_.round_pause * static_cast<Duration::rep>(seating_.seats().size() / options_.crowd);
  SharedViews shared;
  for (const auto& seat : seating_.seats())
    if (liveness_.has_reported(seat.peer)) send_view(seat, shared);
}

// Nothing waits for it: the step goes on without who left, and whoever joins is told at once.
void Coordinator::send_views_soon() {
  if (liveness_.now() >= next_round_) return send_views();
  round_wanted_ = true;
  next_tick_ = std::min(next_tick_, next_round_);
}

}  // namespace isthmus::coordinator
