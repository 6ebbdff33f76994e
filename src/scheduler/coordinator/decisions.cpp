#include "scheduler/coordinator/decisions.h"

#include <algorithm>
#include <utility>

namespace isthmus::coordinator {

namespace {

constexpr std::size_t kDeparturesMax = 256;  // of a stage

}  // namespace

bool is_decision(const LogRecord& record) {
  return !std::holds_alternative<CheckpointRecord>(record) && !std::holds_alternative<EnrolRecord>(record) &&
         !std::holds_alternative<InviteRecord>(record) && !std::holds_alternative<WithdrawRecord>(record) &&
         !std::holds_alternative<SeatRecord>(record) && !std::holds_alternative<UnseatRecord>(record) &&
         !std::holds_alternative<RevokeRecord>(record);
}

Decisions::Decisions(const protocol::Plan& plan)
    : steps_without(plan.stages.size(), 0),
      checkpointed(plan.stages.size(), 0),
      history_(plan.stages.size()),
      written_(plan.stages.size()),
      plan_(plan) {}

const protocol::Member* Decisions::find(SessionId session) const {
  const auto place = standings_.find(session);
  if (place == standings_.end()) return nullptr;
  const auto key = std::tuple(place->second.stage, place->second.replica);
  auto at =
      std::ranges::lower_bound(live, key, {}, [](const protocol::Member& m) { return std::tuple(m.stage, m.replica); });
  while (at != live.end() && at->session != session) ++at;
  return at == live.end() ? nullptr : &*at;
}

const protocol::Member* Decisions::live_of(PeerId peer) const {
  const auto newest = last_session.find(peer);
  return newest == last_session.end() ? nullptr : find(newest->second);
}

std::optional<protocol::Place> Decisions::place_of(PeerId peer) const {
  if (const auto at = moved.find(peer); at != moved.end()) return at->second;
  const auto at = peers.find(peer);
  return at == peers.end() ? std::nullopt : at->second.seat;
}

std::span<const protocol::Member> Decisions::members(StageId first, StageId last) const {
  const auto begin = std::ranges::lower_bound(live, first, {}, &protocol::Member::stage),
             end = std::ranges::upper_bound(live, last, {}, &protocol::Member::stage);
  return begin < end ? std::span(begin, end) : std::span<const protocol::Member>();
}

bool Decisions::stage_is_empty(StageId stage) const { return members(stage).empty(); }

void Decisions::add(const protocol::Member& member) {
  standings_[member.session] = {member.stage, member.replica, epoch};
  history_.at(member.stage.value).changed = epoch;
  const auto key = [](const protocol::Member& m) { return std::tuple(m.stage, m.replica); };
  live.insert(std::ranges::upper_bound(live, key(member), {}, key), member);
}

void Decisions::remove(SessionId session) {
  const protocol::Member* member = find(session);
  if (!member) return;
  History& history = history_.at(member->stage.value);
  history.changed = epoch;
  history.departures.push_back({epoch, session});
  if (history.departures.size() > kDeparturesMax) {
    history.forgotten = history.departures.front().epoch;
    history.departures.pop_front();
  }
  live.erase(live.begin() + (member - live.data()));
  standings_.erase(session);
}

void Decisions::remove_all() {
  live.clear();
  standings_.clear();
  for (auto& history : history_) history = {epoch, epoch, {}};
}

Membership Decisions::membership(StageId first, StageId last, EpochId known) const {
  const auto all = members(first, last);
  Membership membership;
  const auto histories = std::span(history_).subspan(first.value, last.value - first.value + 1);
  const bool knows = known != EpochId(0) && known <= epoch &&
                     std::ranges::all_of(histories, [&](const History& h) { return h.forgotten <= known; });
  if (knows) {
    membership.since = known;
    bool changed = false;
    for (const auto& history : histories) {
      changed = changed || history.changed > known;
      for (auto at = history.departures.rbegin(); at != history.departures.rend() && at->epoch > known; ++at)
        membership.left.push_back(at->session);
    }
    if (!changed) return membership;
    for (const auto& member : all)
      if (standings_.at(member.session).since > known) membership.joined.push_back(member);
    if (membership.left.size() + membership.joined.size() < all.size()) return membership;
  }
  return {EpochId(0), {all.begin(), all.end()}, {}};
}

bool Decisions::is_absent(StageId stage) const { return std::ranges::find(absent, stage) != absent.end(); }

std::uint64_t Decisions::checkpointed_by_all() const { return *std::ranges::min_element(checkpointed); }

// It neither serves nor waits.
void Decisions::leave_seat(PeerId peer) {
  peers[peer].seat.reset();
  moved.erase(peer);
  std::erase(waiting, peer);
}

void Decisions::begin_step(StepId next, std::vector<StageId> without) {
  step = next;
  absent = std::move(without);
  for (std::uint32_t s = 0; s < steps_without.size(); ++s) {
    if (is_absent(StageId(s)))
      ++steps_without[s];
    else if (!stage_is_empty(StageId(s)))
      steps_without[s] = 0;
  }
  deal_anew();
}

void Decisions::forget(SessionId session) {
  remove(session);
  for (std::size_t m = 0; m < head_owner.size(); ++m)
    if (head_owner[m] == session) {
      head_owner[m] = kNoSession;
      head_again[m] = true;
    }
  deal_heads();
}

void Decisions::deal_anew() {
  dealt_before_ = std::exchange(head_owner, std::vector<SessionId>(plan_.count(step), kNoSession));
  head_again.assign(plan_.count(step), false);
  dealt_again.clear();
  deal_heads();
}

void Decisions::deal_heads() {
  if (std::ranges::find(head_owner, kNoSession) == head_owner.end()) return;
  // Before every stage has somebody nothing can come back, and whoever is the first head to arrive would get it all.
  for (std::uint32_t s = 0; s < plan_.stages.size(); ++s)
    if (stage_is_empty(StageId(s)) && !is_absent(StageId(s))) return;
  struct Head {
    SessionId session;
    double share = 0;
    double dealt = 0;
  };
  std::vector<Head> heads;
  for (const auto& member : members(StageId(0))) heads.push_back({member.session});
  if (heads.empty()) return;
  // Of whom nothing is known it is taken to be as fast as the fastest: it would never show otherwise.
  std::uint32_t fastest = 1;
  for (const auto& head : heads)
    if (const auto at = head_share_.find(head.session); at != head_share_.end())
      fastest = std::max(fastest, at->second);
  for (auto& head : heads) {
    const auto at = head_share_.find(head.session);
    const bool known = at != head_share_.end() && at->second != 0 && plan_.routing == protocol::Routing::kFinishTime;
    head.share = static_cast<double>(known ? at->second : fastest);
  }
  std::map<SessionId, double> dealt;
  for (const auto owner : head_owner) dealt[owner] += 1;
  for (auto& head : heads) head.dealt = dealt[head.session];
  // The next one is for the head that is furthest behind its share.
  std::vector<SessionId> turns;
  std::map<SessionId, std::size_t> due;
  for (auto left = std::ranges::count(head_owner, kNoSession); left > 0; --left) {
    Head& behind = *std::ranges::min_element(heads, {}, [](const Head& head) { return (head.dealt + 1) / head.share; });
    behind.dealt += 1;
    turns.push_back(behind.session);
    ++due[behind.session];
  }
  // Who had it in the step before has asked for what it reads already (router/token_supply.h).
  for (std::size_t m = 0; m < std::min(head_owner.size(), dealt_before_.size()); ++m)
    if (const auto at = due.find(dealt_before_[m]); head_owner[m] == kNoSession && at != due.end() && at->second > 0) {
      head_owner[m] = at->first;
      --at->second;
    }
  auto turn = turns.begin();
  for (auto& owner : head_owner) {
    if (owner != kNoSession) continue;
    while (due.at(*turn) == 0) ++turn;
    owner = *turn;
    --due.at(*turn++);
  }
}

// A stage whose disk was full for a while lacks versions in the middle, so its newest one says nothing of the others.
void Decisions::written(const CheckpointRecord& record) {
  written_.at(record.stage.value).insert(record.version);
  const bool by_all = std::ranges::all_of(
      written_, [&](const std::set<std::uint64_t>& versions) { return versions.contains(record.version); });
  if (!by_all || record.version <= whole) return;
  whole = record.version;
  for (auto& versions : written_) versions.erase(versions.begin(), versions.lower_bound(whole));
}

void Decisions::apply(const LogRecord& record) {
  if (is_decision(record)) ++epoch.value;

  if (const auto* init = std::get_if<InitRecord>(&record)) {
    // To begin again is to go back, too.
    if (step != StepId(0)) rollbacks.push_back(init->version);
    remove_all();
    moved.clear();
    last_commit.reset();
    commits.clear();
    ++attempt;
    // The process that began again holds checkpoints of this version, or the initial weights.
    checkpointed.assign(checkpointed.size(), init->version);
    checkpointed_before = 0;
    whole = init->version;
    written_.assign(written_.size(), {whole});
    begin_step(StepId(init->version + 1), {});
  } else if (const auto* admit = std::get_if<AdmitRecord>(&record)) {
    add(admit->member);
    last_session[admit->member.peer] = admit->member.session;
    used_sessions.insert(admit->member.session);
    deal_heads();
  } else if (const auto* expel = std::get_if<ExpelRecord>(&record)) {
    forget(expel->session);
  } else if (const auto* move = std::get_if<MoveRecord>(&record)) {
    moved[move->peer] = move->to;
    if (const auto peer = peers.find(move->peer); peer != peers.end())
      served[peer->second.identity].insert(move->to.stage);
    if (const protocol::Member* member = live_of(move->peer)) forget(member->session);
  } else if (const auto* deal = std::get_if<DealRecord>(&record)) {
    for (const auto& [m, session] : deal->to) head_owner.at(m.value) = session;
    dealt_again[deal->from] = epoch;
  } else if (const auto* commit = std::get_if<CommitRecord>(&record)) {
    last_commit = commit->commit;
    commits.push_back(commit->commit);
    head_share_ = commit->head_share;
    begin_step(StepId(commit->commit.step.value + 1), commit->absent);
  } else if (const auto* checkpoint = std::get_if<CheckpointRecord>(&record)) {
    const auto before = checkpointed_by_all();
    auto& version = checkpointed.at(checkpoint->stage.value);
    version = std::max(version, checkpoint->version);
    const auto oldest = checkpointed_by_all();
    if (oldest > before) checkpointed_before = before;
    std::erase_if(commits, [&](const protocol::Commit& c) { return c.step.value <= oldest; });
    written(*checkpoint);
  } else if (const auto* rollback = std::get_if<RollbackRecord>(&record)) {
    remove_all();
    last_commit.reset();
    commits.clear();
    head_share_.clear();
    ++attempt;
    rollbacks.push_back(rollback->version);
    for (auto& version : checkpointed) version = std::min(version, rollback->version);
    if (checkpointed_before >= rollback->version) checkpointed_before = 0;
    whole = std::min(whole, rollback->version);
    for (auto& versions : written_) versions.erase(versions.upper_bound(rollback->version), versions.end());
    begin_step(StepId(rollback->version + 1), {});
  } else if (const auto* again = std::get_if<AttemptRecord>(&record)) {
    ++attempt;
    absent = again->absent;
    for (const auto stage : absent) steps_without[stage.value] = std::max(1u, steps_without[stage.value]);
    deal_anew();
  } else if (const auto* invite = std::get_if<InviteRecord>(&record)) {
    invites[invite->key] = {invite->uses, 0, invite->expires_s, invite->stage, false, invite->trusted};
  } else if (const auto* withdraw = std::get_if<WithdrawRecord>(&record)) {
    invites[withdraw->key].withdrawn = true;
  } else if (const auto* enrol = std::get_if<EnrolRecord>(&record)) {
    peers[enrol->peer] = {enrol->identity, enrol->key, enrol->name, enrol->wish, enrol->invite, {}, false, false, {}};
    Peer& peer = peers[enrol->peer];
    peer.trusted = !enrol->invite || invites[*enrol->invite].trusted;
    if (enrol->invite) ++invites[*enrol->invite].used;
    waiting.push_back(enrol->peer);
  } else if (const auto* seat = std::get_if<SeatRecord>(&record)) {
    leave_seat(seat->peer);
    Peer& peer = peers[seat->peer];
    peer.seat = protocol::Place{seat->stage, seat->replica};
    served[peer.identity].insert(seat->stage);
  } else if (const auto* unseat = std::get_if<UnseatRecord>(&record)) {
    leave_seat(unseat->peer);
    waiting.push_back(unseat->peer);
  } else if (const auto* revoke = std::get_if<RevokeRecord>(&record)) {
    leave_seat(revoke->peer);
    Peer& peer = peers[revoke->peer];
    peer.revoked = true;
    peer.banned = revoke->ban;
    peer.reason = revoke->reason;
  }
}

}  // namespace isthmus::coordinator
