// The end of a step: who waits for whom, and the commit.

#include <algorithm>
#include <iterator>
#include <utility>

#include "scheduler/coordinator/coordinator.h"
#include "scheduler/coordinator/step_result.h"

namespace isthmus::coordinator {

namespace {

// A joiner whose newest report is not older than this follows its siblings step by step.
constexpr std::uint64_t kNearlyCaughtUp = 3;

}  // namespace

bool Coordinator::waits_for_loader(Time now) {
  if (committed_ != Time{}) return false;
  const bool any = std::ranges::any_of(seating_.seats(), [&](const Seat& seat) {
    return liveness_.is_connected(seat.peer) && !liveness_.has_reported(seat.peer);
  });
  if (!any) return false;
  if (!loading_until_) loading_until_ = now + options_.load_wait;
  return now < *loading_until_;
}

// A replica that is a few steps behind would stay behind for ever if a step is shorter than it takes to fetch one: the
// finished step waits for it before the sums are combined, for a small share of the time.
bool Coordinator::waits_for_joiner(Time now) {
  if (waits_for_loader(now)) return true;
  const auto steps = step_time_ > Duration{} ? static_cast<std::uint64_t>(options_.join_within / step_time_) : 0;
  const std::uint64_t few = std::max(kNearlyCaughtUp, steps);
  std::vector<SessionId> near;
  for (const PeerId peer : outsiders_) {
    if (!is_candidate(*seating_.find(peer))) continue;
    const protocol::Report& report = reports_.at(peer);
    if (report.timeline == timeline() && report.version != protocol::kNoVersion &&
        report.version + few >= decisions_.step.value)
      near.push_back(report.session);
  }
  return join_patience_.waits(near, now);
}

void Coordinator::evaluate(Time now) {
  const auto verdict = ledger_.verdict();
  if (verdict.duplicate) {
    const protocol::Member twice = *decisions_.find(*verdict.duplicate);
    expel(twice, "a microbatch has two owners in its stage");
    return;
  }
  if (!verdict.complete) return;
  // A step that is nothing but a sync has no microbatch that would wait for a stage nobody serves.
  for (std::uint32_t s = 0; s < plan_.stages.size() && ledger_.count() == 0; ++s)
    if (decisions_.stage_is_empty(StageId(s)) && !decisions_.is_absent(StageId(s))) return;
  if (ledger_.all_prepared(decisions_.live.size(), decisions_.epoch)) {
    if (const auto wrong = Verdicts::dissenter(decisions_, ledger_))
      expel(wrong->member, wrong->reason);
    else if (preparing_ || !waits_for_joiner(now))  // stages of one replica are prepared without being asked
      commit();
  } else if (!preparing_ && !waits_for_joiner(now)) {
    // Not logged: after a restart the same Reports lead here again.
    preparing_ = true;
    send_views();
  }
}

// Squared norms of the stage's gradient, per unit. All replicas have prepared the same sum, unless they step on their
// own.
std::vector<protocol::UnitNorm> Coordinator::norms_of(StageId stage) const {
  const auto members = decisions_.members(stage);
  const auto entry = [&](const protocol::Member& member) -> const Ledger::Entry& {
    return ledger_.entries().at(member.session);
  };
  const double weight = paths_.weight(stage);
  std::vector<protocol::UnitNorm> norms = entry(members.front()).norms;
  if (plan_.stages[stage.value].local) {
    std::vector<OwnNorms> own;
    for (const auto& member : members)
      own.push_back({entry(member).done.size_below(plan_.training_count(decisions_.step)), entry(member).norms});
    norms = mean_norms(own);
  }
  for (auto& unit : norms) unit.norm2 *= weight * weight;
  return norms;
}

void Coordinator::commit() {
  StepOutcome outcome;
  bool finite = true;
  std::vector<protocol::UnitNorm> norms;
  std::map<MicrobatchId, protocol::MicrobatchLoss> losses;
  std::optional<StageId> counted;
  CommitRecord record;
  // Members are in stage order and units in layer order.
  for (const auto& member : decisions_.live) {
    const auto& entry = ledger_.entries().at(member.session);
    finite = finite && entry.finite;
    if (counted != member.stage) std::ranges::move(norms_of(member.stage), std::back_inserter(norms));
    counted = member.stage;
    if (member.stage == plan_.last_stage())
      losses.insert(entry.losses.begin(), entry.losses.end());  // nobody else knows
    const protocol::WorkerStats& stats = outcome.stats[member.peer] = reports_[member.peer].stats;
    if (member.stage == StageId(0) && stats.service_us > 0)
      record.head_share[member.session] =
          static_cast<std::uint32_t>(std::max(1.0, 1e9 / static_cast<double>(stats.service_us)));
  }
  const StepResult result =
      step_result(plan_, decisions_.step, options_.clip, norms, finite, losses, verdicts_.guard(), decisions_.absent);
  outcome.figures = result.figures;
  outcome.figures.replayed = std::exchange(replayed_, 0);
  outcome.commit.step = decisions_.step;
  outcome.commit.attempt = decisions_.attempt;
  outcome.commit.epoch = decisions_.epoch;
  outcome.commit.apply = result.apply;
  outcome.commit.scale = result.scale;
  outcome.commit.absent = decisions_.absent;
  record.absent = absence_.of_next_step(decisions_);

  const StepId step = decisions_.step;
  if (committed_ != Time{})
    step_time_ =
        step_time_ == Duration{} ? liveness_.now() - committed_ : (3 * step_time_ + liveness_.now() - committed_) / 4;
  committed_ = liveness_.now();
  record.commit = outcome.commit;
  record.figures = outcome.figures;
  record.reason = result.reason;
  append(std::move(record));
  if (step == plan_.final_step()) {
    phase_ = protocol::Phase::kFinished;
    ends_at_ = liveness_.now() + options_.leave;
  }
  make_move();
  let_leavers_go();
  send_views();
  effects_.push_back(StepCommitted{outcome});
  happened(step, events::Committed{result.reason});
  consider_bad_steps();
  if (phase_ == protocol::Phase::kFinished) happened(events::Finished{});
  admit_candidates(liveness_.now());
}

void Coordinator::consider_bad_steps() {
  if (phase_ != protocol::Phase::kRunning) return;
  auto after = verdicts_.after_bad_steps(decisions_);
  if (auto* back = std::get_if<RollbackRecord>(&after)) roll_back(std::move(*back), kCoordinator);
  if (auto* warning = std::get_if<events::Warning>(&after)) happened(std::move(*warning));
  if (const auto* stop = std::get_if<events::Stopping>(&after))
    enter(protocol::Phase::kStopping, stop->reason, liveness_.now());
}

}  // namespace isthmus::coordinator
