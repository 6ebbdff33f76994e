#include "scheduler/ledger.h"

#include <algorithm>

namespace isthmus {

void Ledger::begin(std::uint32_t count) {
  count_ = count;
  entries_.clear();
}

void Ledger::record(const Report& report) {
  auto [at, fresh] = entries_.try_emplace(report.session);
  Entry& entry = at->second;
  if (fresh) entry.done = DoneSet(count_);
  if (report.done.count() == count_) entry.done.merge(report.done);
  for (const auto& loss : report.losses)
    if (entry.done.contains(loss.microbatch)) entry.losses[loss.microbatch] = loss;
  if (report.prepared_epoch > entry.prepared_epoch) {
    entry.prepared_epoch = report.prepared_epoch;
    entry.norms = report.norms;
    entry.finite = report.finite;
    entry.sum_digest = report.sum_digest;
  }
}

Ledger::Verdict Ledger::verdict(const std::vector<Member>& live, const StepPaths& paths) const {
  std::vector<DoneSet> owned(paths.stages(), DoneSet(count_));
  for (const auto& member : live) {
    const auto at = entries_.find(member.session);
    if (at == entries_.end()) continue;
    DoneSet& stage = owned[member.stage.value];
    const auto before = stage.size();
    stage.merge(at->second.done);
    if (stage.size() != before + at->second.done.size()) return {false, member.session};
  }
  for (std::uint32_t s = 0; s < owned.size(); ++s)
    if (owned[s].size() != paths.count(StageId(s))) return {false, std::nullopt};
  return {true, std::nullopt};
}

bool Ledger::all_prepared(const std::vector<Member>& live, EpochId epoch) const {
  return std::ranges::all_of(live, [&](const Member& member) {
    const auto at = entries_.find(member.session);
    return at != entries_.end() && at->second.prepared_epoch == epoch;
  });
}

}  // namespace isthmus
