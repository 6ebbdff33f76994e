#include "scheduler/decisions.h"

#include <algorithm>

namespace isthmus {

Decisions::Decisions(const Plan& plan) : steps_without(plan.stages.size(), 0), checkpointed(plan.stages.size(), 0), plan_(plan) {}

const Member* Decisions::find(SessionId session) const {
  const auto at = std::ranges::find(live, session, &Member::session);
  return at == live.end() ? nullptr : &*at;
}

const Member* Decisions::live_of(PeerId peer) const {
  const auto at = std::ranges::find(live, peer, &Member::peer);
  return at == live.end() ? nullptr : &*at;
}

bool Decisions::stage_is_empty(StageId stage) const {
  return std::ranges::find(live, stage, &Member::stage) == live.end();
}

bool Decisions::is_absent(StageId stage) const { return std::ranges::find(absent, stage) != absent.end(); }

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
  std::erase_if(live, [&](const Member& m) { return m.session == session; });
  for (std::size_t m = 0; m < head_owner.size(); ++m)
    if (head_owner[m] == session) {
      head_owner[m] = kNoSession;
      head_again[m] = true;
    }
  deal_heads();
}

void Decisions::deal_anew() {
  head_owner.assign(plan_.count(step), kNoSession);
  head_again.assign(plan_.count(step), false);
  deal_heads();
}

void Decisions::deal_heads() {
  // Before every stage has somebody nothing can come back, and whoever is the first head to arrive would get it all.
  for (std::uint32_t s = 0; s < plan_.stages.size(); ++s)
    if (stage_is_empty(StageId(s)) && !is_absent(StageId(s))) return;
  std::vector<SessionId> heads;
  for (const auto& member : live)
    if (member.stage == StageId(0)) heads.push_back(member.session);
  if (heads.empty()) return;
  // The next one goes to the head that is furthest behind its share.
  std::map<SessionId, double> dealt;
  // Of whom nothing is known it is taken to be as fast as the fastest: it would never show otherwise.
  std::uint32_t fastest = 1;
  for (const auto head : heads)
    if (const auto at = head_share_.find(head); at != head_share_.end()) fastest = std::max(fastest, at->second);
  const auto share = [&](SessionId head) {
    const auto at = head_share_.find(head);
    const bool known = at != head_share_.end() && at->second != 0 && plan_.routing == Routing::kFinishTime;
    return static_cast<double>(known ? at->second : fastest);
  };
  for (const auto owner : head_owner) dealt[owner] += 1;
  for (auto& owner : head_owner)
    if (owner == kNoSession) {
      owner = *std::ranges::min_element(heads, {}, [&](SessionId head) { return (dealt[head] + 1) / share(head); });
      dealt[owner] += 1;
    }
}

void Decisions::apply(const LogRecord& record) {
  if (!std::holds_alternative<CheckpointRecord>(record)) ++epoch.value;

  if (const auto* init = std::get_if<InitRecord>(&record)) {
    // To begin again is to go back, too.
    if (step != StepId(0)) rollbacks.push_back(init->version);
    live.clear();
    moved.clear();
    last_commit.reset();
    commits.clear();
    ++attempt;
    // The process that began again holds checkpoints of this version, or the initial weights.
    checkpointed.assign(checkpointed.size(), init->version);
    begin_step(StepId(init->version + 1), {});
  } else if (const auto* admit = std::get_if<AdmitRecord>(&record)) {
    live.push_back(admit->member);
    std::ranges::sort(live, {}, [](const Member& m) { return std::tuple(m.stage, m.replica); });
    last_session[admit->member.peer] = admit->member.session;
    used_sessions.insert(admit->member.session);
    deal_heads();
  } else if (const auto* expel = std::get_if<ExpelRecord>(&record)) {
    forget(expel->session);
  } else if (const auto* move = std::get_if<MoveRecord>(&record)) {
    moved[move->peer] = move->to;
    if (const Member* member = live_of(move->peer)) forget(member->session);
  } else if (const auto* commit = std::get_if<CommitRecord>(&record)) {
    last_commit = commit->commit;
    commits.push_back(commit->commit);
    head_share_ = commit->head_share;
    begin_step(StepId(commit->commit.step.value + 1), commit->absent);
  } else if (const auto* checkpoint = std::get_if<CheckpointRecord>(&record)) {
    auto& version = checkpointed.at(checkpoint->stage.value);
    version = std::max(version, checkpoint->version);
    const auto oldest = *std::ranges::min_element(checkpointed);
    std::erase_if(commits, [&](const Commit& c) { return c.step.value <= oldest; });
  } else if (const auto* rollback = std::get_if<RollbackRecord>(&record)) {
    live.clear();
    last_commit.reset();
    commits.clear();
    head_share_.clear();
    ++attempt;
    rollbacks.push_back(rollback->version);
    for (auto& version : checkpointed) version = std::min(version, rollback->version);
    begin_step(StepId(rollback->version + 1), {});
  } else if (const auto* again = std::get_if<AttemptRecord>(&record)) {
    ++attempt;
    absent = again->absent;
    for (const auto stage : absent) steps_without[stage.value] = std::max(1u, steps_without[stage.value]);
    deal_anew();
  }
}

}  // namespace isthmus
