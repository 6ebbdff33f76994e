#include "scheduler/coordinator/absence.h"

#include <algorithm>
#include <utility>

#include "protocol/step_paths.h"

namespace isthmus::coordinator {

namespace {

// Stages that the running step goes without, but for those that somebody has come back to.
std::vector<StageId> still_empty(const Decisions& decisions) {
  std::vector<StageId> empty = decisions.absent;
  std::erase_if(empty, [&](StageId stage) { return !decisions.stage_is_empty(stage); });
  return empty;
}

}  // namespace

std::vector<StageId> Absence::of_next_step(const Decisions& decisions) const {
  std::vector<StageId> absent = still_empty(decisions);
  std::erase_if(absent, [&](StageId stage) { return decisions.steps_without[stage.value] >= plan_.skip_steps; });
  return absent;
}

std::optional<Time> Absence::skips_at(const Decisions& decisions, StageId stage) const {
  const auto since = empty_since_.find(stage);
  const bool skips = since != empty_since_.end() && !decisions.is_absent(stage) &&
                     decisions.steps_without[stage.value] < plan_.skip_steps && protocol::may_be_absent(plan_, {stage});
  return skips ? std::optional(since->second + plan_.skip_after) : std::nullopt;
}

Absence::Turn Absence::turn(const Decisions& decisions, Time now) {
  Turn turn;
  if (plan_.skip_after == Duration{} || !decisions.last_commit || decisions.step > plan_.final_step()) return turn;
  // The running step goes on without those it goes without already, also if the next one would not.
  std::vector<StageId> absent = still_empty(decisions);
  bool more = false;
  for (std::uint32_t s = 0; s < plan_.stages.size(); ++s) {
    const StageId stage(s);
    if (!decisions.stage_is_empty(stage)) {
      empty_since_.erase(stage);
      waited_for_.erase(stage);
      continue;
    }
    const Time since = empty_since_.try_emplace(stage, now).first->second;
    if (decisions.is_absent(stage) || now - since < plan_.skip_after) continue;
    if (decisions.steps_without[s] >= plan_.skip_steps) {
      if (waited_for_.insert(stage).second) turn.events.push_back(events::StageAwaited{stage, plan_.skip_steps});
      continue;
    }
    std::vector<StageId> with = absent;
    with.push_back(stage);
    std::ranges::sort(with);
    if (!protocol::may_be_absent(plan_, with)) continue;
    absent = std::move(with);
    more = true;
    turn.events.push_back(events::StageSkipped{stage, now - since});
  }
  if (more) turn.attempt = AttemptRecord{std::move(absent)};
  return turn;
}

}  // namespace isthmus::coordinator
