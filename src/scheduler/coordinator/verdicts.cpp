#include "scheduler/coordinator/verdicts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace isthmus::coordinator {

namespace {

constexpr Duration kRepeatPatience = seconds(10);  // as long as a rebuild waits for a lost journal

}  // namespace

void Verdicts::apply(const LogRecord& record) {
  guard_.apply(record);
  if (const auto* commit = std::get_if<CommitRecord>(&record)) {
    if (!commit->reason.empty()) last_bad_ = commit->commit.step;
    if (plan_.training_count(commit->commit.step) > 0) last_figures_ = commit->figures;
    if (commit->figures.validation_loss) last_validation_ = commit->figures.validation_loss;
  } else if (std::holds_alternative<InitRecord>(record) || std::holds_alternative<RollbackRecord>(record)) {
    last_bad_ = {};
    last_figures_.reset();
    last_validation_.reset();
    cannot_repeat_since_.clear();  // what is kept, and who holds it, has to be found out anew
  }
}

std::optional<Verdicts::Expulsion> Verdicts::unreachable(const Decisions& decisions, SessionId accuser,
                                                         SessionId accused) {
  const protocol::Member* one = decisions.find(accuser);
  const protocol::Member* other = decisions.find(accused);
  if (!one || !other) return std::nullopt;
  const std::size_t of_one = decisions.members(one->stage).size(), of_other = decisions.members(other->stage).size();
  if (std::max(of_one, of_other) < 2) return std::nullopt;
  const protocol::Member& goes = of_one > of_other ? *one : *other;
  const protocol::Member& stays = of_one > of_other ? *other : *one;
  return Expulsion{goes, fmt::format("it and worker {} cannot reach each other", stays.peer)};
}

std::optional<events::Unreachable> Verdicts::stuck(const Decisions& decisions, SessionId accuser, SessionId accused) {
  const protocol::Member* one = decisions.find(accuser);
  const protocol::Member* other = decisions.find(accused);
  if (!one || !other || !stuck_.insert(std::minmax(accuser, accused)).second) return std::nullopt;
  const auto& outside = other->location.outside;
  return events::Unreachable{one->peer, other->peer, other->stage,
                             outside.empty() ? other->endpoints.control : outside.control};
}

void Verdicts::forget(SessionId session) {
  accused_.erase(session);
  std::erase_if(stuck_, [&](const auto& pair) { return pair.first == session || pair.second == session; });
}

std::optional<Verdicts::Expulsion> Verdicts::dissenter(const Decisions& decisions, const Ledger& ledger) {
  std::map<StageId, std::map<std::string, std::uint32_t>> votes;
  for (const auto& member : decisions.live) ++votes[member.stage][ledger.entries().at(member.session).sum_digest];
  for (const auto& member : decisions.live) {
    const auto& of_stage = votes[member.stage];
    if (of_stage.size() < 2) continue;
    const auto most = std::ranges::max_element(of_stage, {}, [](const auto& v) { return v.second; });
    for (const auto& sibling : decisions.members(member.stage))
      if (ledger.entries().at(sibling.session).sum_digest != most->first)
        return Expulsion{sibling, "its sum of the step differs from its siblings'"};
  }
  return std::nullopt;
}

std::vector<events::Offender> Verdicts::offenders(const Decisions& decisions, const protocol::Report& report) {
  const protocol::Member* accuser = decisions.find(report.session);
  if (!accuser) return {};
  const auto members = decisions.members(accuser->stage);
  for (const auto& offence : report.offences) {
    const protocol::Member* accused = decisions.find(offence.session);
    if (!accused || accused->stage != accuser->stage || accused == accuser || offence.version <= last_bad_.value)
      continue;
    Accusations& accusations = accused_[offence.session];
    if (accusations.version > offence.version) continue;
    if (accusations.version < offence.version) accusations = {offence.version, {}, false};
    accusations.by.insert(report.session);
  }
  const std::size_t siblings = members.size() - 1;
  const auto is_heard = [&](SessionId by, std::uint64_t version) {
    const auto accuses = std::ranges::count_if(members, [&](const protocol::Member& member) {
      const auto at = accused_.find(member.session);
      return at != accused_.end() && at->second.version == version && at->second.by.contains(by);
    });
    return siblings < 2 || 2 * static_cast<std::size_t>(accuses) <= siblings;
  };
  std::vector<events::Offender> offenders;
  for (const auto& offence : report.offences) {
    const auto at = accused_.find(offence.session);
    if (at == accused_.end() || at->second.version != offence.version || at->second.named) continue;
    const auto heard =
        std::ranges::count_if(at->second.by, [&](SessionId by) { return is_heard(by, offence.version); });
    if (2 * static_cast<std::size_t>(heard) <= siblings) continue;
    at->second.named = true;
    offenders.push_back({decisions.find(offence.session)->peer, offence.version, offence.what});
  }
  return offenders;
}

bool Verdicts::cannot_repeat(const Decisions& decisions, StageId stage, const protocol::Report& report, Time now) {
  const bool behind = report.version != protocol::kNoVersion && report.timeline == decisions.rollbacks.size() &&
                      report.version + 1 < decisions.step.value;
  const bool kept = std::ranges::find(decisions.commits, StepId(report.version + 1), &protocol::Commit::step) !=
                    decisions.commits.end();
  if (!behind || kept || !decisions.stage_is_empty(stage)) {
    cannot_repeat_since_.erase(report.session);
    return false;
  }
  return now - cannot_repeat_since_.try_emplace(report.session, now).first->second >= kRepeatPatience;
}

// The newest version that every stage has on its disks of weights older than those that the bad steps found; 0: none. A
// run goes back to a version once: whatever spoilt its weights did so again.
std::uint64_t Verdicts::last_good_version(const Decisions& decisions) const {
  const std::uint64_t every = std::max<std::uint64_t>(plan_.checkpoint_every, 1);
  const auto is_kept = [&](std::uint64_t version) {
    return std::ranges::all_of(decisions.checkpointed,
                               [&](auto newest) { return newest < version + options_.checkpoints_kept * every; });
  };
  for (const std::uint64_t version : {decisions.checkpointed_by_all(), decisions.checkpointed_before})
    if (version > guard_.gone_back_to() && version < guard_.trained().value && is_kept(version)) return version;
  return 0;
}

// Where nothing helps but other weights, skipping does not. With none to go back to, the guard takes the bad steps for
// what is usual now; one that is bad even so is not finite, and the run is over.
Verdicts::AfterBadSteps Verdicts::after_bad_steps(const Decisions& decisions) const {
  if (!guard_.out_of_patience()) return {};
  const std::string what = fmt::format("{} steps in a row were bad", guard_.streak());
  if (const std::uint64_t version = last_good_version(decisions)) {
    const StepRange left_out = guard_.suspects(version);
    return RollbackRecord{
        version, fmt::format("{}; the data of steps {} to {} is left out", what, left_out.first, left_out.last),
        left_out};
  }
  if (guard_.streak() == options_.guard.patience)
    return events::Warning{kCoordinator,
                           what + ", and there is no checkpoint to go back to; the next ones are judged anew"};
  return events::Stopping{what + ", and there is no checkpoint to go back to; try a lower train.learning_rate"};
}

std::string Verdicts::objection_to_end() const {
  if (last_figures_ && !std::isfinite(last_figures_->loss))
    return "its last loss is not finite; try a lower train.learning_rate";
  if (last_validation_ && !std::isfinite(*last_validation_))
    return "its validation loss is not finite; try a lower train.learning_rate";
  // Half of what skipping is not enough for, or half of a short run.
  const std::uint64_t streak = guard_.streak();
  const bool many = (options_.guard.patience > 0 && 2 * streak >= options_.guard.patience) || 2 * streak >= plan_.steps;
  if (streak > 1 && many)
    return fmt::format(
        "its last {} steps were all bad and changed no weights (events.jsonl says why); try a lower "
        "train.learning_rate",
        streak);
  return "";
}

}  // namespace isthmus::coordinator
