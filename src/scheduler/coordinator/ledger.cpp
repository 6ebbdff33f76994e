#include "scheduler/coordinator/ledger.h"

namespace isthmus::coordinator {

void Ledger::begin(std::uint32_t count, const protocol::StepPaths& paths) {
  count_ = count;
  entries_.clear();
  prepared_.clear();
  duplicates_.clear();
  stages_.clear();
  incomplete_ = 0;
  for (std::uint32_t s = 0; s < paths.stages(); ++s) {
    stages_.push_back({DoneSet(count), 0, paths.count(StageId(s))});
    if (stages_.back().expected != 0) ++incomplete_;
  }
}

void Ledger::add(StageId place, SessionId session, const DoneSet& fresh) {
  Stage& stage = stages_.at(place.value);
  const std::uint32_t size = fresh.size();
  if (size == 0) return;
  const bool complete = stage.owned_count == stage.expected;
  stage.owned.merge(fresh);
  const std::uint32_t count = stage.owned.size();
  if (count != stage.owned_count + size) duplicates_[place] = session;
  stage.owned_count = count;
  const bool now_complete = count == stage.expected;
  if (complete != now_complete) incomplete_ += now_complete ? -1 : 1;
}

void Ledger::forget(SessionId session) {
  const auto at = entries_.find(session);
  if (at == entries_.end()) return;
  if (const EpochId epoch = at->second.prepared_epoch; epoch != EpochId(0) && --prepared_[epoch] == 0)
    prepared_.erase(epoch);
  const StageId place = at->second.stage;
  duplicates_.erase(place);
  entries_.erase(at);
  // What is left of its stage, from nothing: a microbatch of two owners still has one.
  Stage& stage = stages_.at(place.value);
  if (stage.owned_count == stage.expected && stage.expected != 0) ++incomplete_;
  if (stage.owned_count != stage.expected && stage.expected == 0) --incomplete_;
  stage.owned = DoneSet(count_);
  stage.owned_count = 0;
  for (const auto& [other, entry] : entries_)
    if (entry.stage == place) add(place, other, entry.done);
}

void Ledger::record(const protocol::Report& report) {
  auto [at, fresh] = entries_.try_emplace(report.session);
  Entry& entry = at->second;
  if (fresh) {
    entry.stage = report.stage;
    entry.done = DoneSet(count_);
  }
  if (report.done.count() == count_ && !(report.done == entry.done)) {
    const DoneSet more = report.done.without(entry.done);
    entry.done.merge(more);
    add(entry.stage, report.session, more);
  }
  for (const auto& loss : report.losses)
    if (entry.done.contains(loss.microbatch)) entry.losses[loss.microbatch] = loss;
  if (report.prepared_epoch > entry.prepared_epoch) {
    if (entry.prepared_epoch != EpochId(0) && --prepared_[entry.prepared_epoch] == 0)
      prepared_.erase(entry.prepared_epoch);
    ++prepared_[report.prepared_epoch];
    entry.prepared_epoch = report.prepared_epoch;
    entry.norms = report.norms;
    entry.finite = report.finite;
    entry.sum_digest = report.sum_digest;
  }
}

bool Ledger::all_prepared(std::size_t live, EpochId epoch) const {
  const auto at = prepared_.find(epoch);
  return live == 0 || (at != prepared_.end() && at->second == live);
}

}  // namespace isthmus::coordinator
