#include "sim/checkers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "protocol/step_paths.h"

namespace isthmus::sim {

namespace {

constexpr std::size_t kViolationsMax = 60;

}  // namespace

void Checkers::violation(std::string what) {
  if (violations_.size() < kViolationsMax) violations_.push_back(std::move(what));
}

void Checkers::reported(const protocol::Report& report) {
  auto& epoch = prepared_[report.session];
  epoch = std::max(epoch, report.prepared_epoch);
  auto& durable = durable_[report.session];
  durable = std::max(durable, report.checkpointed);
}

// Nobody may be left out who could have taken part, nor so many, or such, that the rest learns a different model.
void Checkers::without(const std::vector<StageId>& absent) {
  for (std::size_t i = 0; i < absent.size(); ++i) {
    const std::uint32_t stage = absent[i].value;
    if (std::ranges::find(live_, absent[i], &Live::stage) != live_.end())
      violation(fmt::format("stage {} is skipped although it is served", stage));
    if (stage == 0 || stage + 1 >= plan_.stages.size())
      violation(fmt::format("stage {}, an end of the pipeline, is skipped", stage));
    if (i > 0 && stage <= absent[i - 1].value + 1)
      violation(fmt::format("stages {} and {} are skipped", absent[i - 1], stage));
  }
  if (3 * absent.size() > plan_.stages.size())
    violation(fmt::format("{} of {} stages are skipped", absent.size(), plan_.stages.size()));
}

void Checkers::logged(const coordinator::LogRecord& record,
                      const std::map<SessionId, std::multiset<std::uint32_t>>& sums) {
  if (const auto* admit = std::get_if<coordinator::AdmitRecord>(&record)) {
    if (!admitted_.insert(admit->member.session).second) violation("a session was admitted twice");
    if (admit->version != version_)
      violation(fmt::format("a worker with version {} was admitted at version {}", admit->version, version_));
    if (const auto moved = moved_.find(admit->member.peer);
        moved != moved_.end() && moved->second != admit->member.stage)
      violation(fmt::format("worker {} was moved to stage {} and is admitted to stage {}", admit->member.peer,
                            moved->second, admit->member.stage));
    live_.push_back({admit->member.peer, admit->member.session, admit->member.stage});
  } else if (const auto* expel = std::get_if<coordinator::ExpelRecord>(&record)) {
    if (std::erase_if(live_, [&](const Live& l) { return l.session == expel->session; }) == 0)
      violation("an expulsion of nobody");
  } else if (const auto* move = std::get_if<coordinator::MoveRecord>(&record)) {
    moved_[move->peer] = move->to.stage;
    const auto at = std::ranges::find(live_, move->peer, &Live::peer);
    if (at == live_.end()) {
      violation(fmt::format("worker {}, which serves nothing, is moved", move->peer));
    } else {
      const StageId from = at->stage;
      live_.erase(at);
      if (std::ranges::find(live_, from, &Live::stage) == live_.end())
        violation(fmt::format("stage {} lost its last replica to a move", from));
    }
  } else if (const auto* unseat = std::get_if<coordinator::UnseatRecord>(&record)) {
    moved_.erase(unseat->peer);
    if (std::ranges::find(live_, unseat->peer, &Live::peer) != live_.end())
      violation(fmt::format("worker {}, which serves, gives up its seat", unseat->peer));
  } else if (const auto* commit = std::get_if<coordinator::CommitRecord>(&record)) {
    const StepId step = commit->commit.step;
    if (step.value != version_ + 1) violation(fmt::format("step {} committed after version {}", step, version_));
    if (commit->commit.epoch.value != epoch_)
      violation(fmt::format("step {} was committed for epoch {}, decided in {}", step, commit->commit.epoch, epoch_));
    const protocol::StepPaths paths(plan_, step, commit->commit.absent);
    for (std::uint32_t s = 0; s < plan_.stages.size(); ++s) {
      std::multiset<std::uint32_t> stage;
      for (const auto& member : live_) {
        if (member.stage != StageId(s)) continue;
        if (prepared_[member.session].value != epoch_)
          violation(fmt::format("step {} committed although a member of stage {} had not prepared it", step, s));
        // A member that died after it prepared and before anybody noticed has no accumulator any more.
        if (const auto at = sums.find(member.session); at != sums.end())
          stage.insert(at->second.begin(), at->second.end());
        else
          stage.insert(UINT32_MAX);
      }
      if (stage.contains(UINT32_MAX)) continue;
      for (std::uint32_t m = 0; m < plan_.training_count(step); ++m)
        if (stage.count(m) != (paths.visits(MicrobatchId(m), StageId(s)) ? 1 : 0))
          violation(fmt::format("step {}: microbatch {} counts {} times in stage {}", step, m, stage.count(m), s));
    }
    reference_.taken(step, commit->commit.absent);
    without(commit->absent);
    if (step.value <= plan_.steps) bad_in_a_row_ = commit->commit.apply ? 0 : bad_in_a_row_ + 1;
    version_ = step.value;
    newest_ = std::max(newest_, version_);
    ++commits_;
  } else if (const auto* rollback = std::get_if<coordinator::RollbackRecord>(&record)) {
    if (rollback->version > version_) violation("a rollback into the future");
    if (!rollback->left_out.empty()) {
      past_.push_back({reference_, version_});
      reference_.leave_out(rollback->left_out);
    }
    version_ = rollback->version;
    bad_in_a_row_ = 0;
    live_.clear();
  } else if (const auto* checkpoint = std::get_if<coordinator::CheckpointRecord>(&record)) {
    // Neighbours drop their journals on the word of it, and a rollback goes to it.
    for (const auto& member : live_)
      if (member.stage == checkpoint->stage && durable_[member.session] < checkpoint->version)
        violation(fmt::format("version {} of stage {} is not on the disk of every replica", checkpoint->version,
                              checkpoint->stage));
  } else if (const auto* deal = std::get_if<coordinator::DealRecord>(&record)) {
    const auto is_head = [&](SessionId session) {
      return std::ranges::any_of(live_, [&](const Live& l) { return l.session == session && l.stage == StageId(0); });
    };
    if (!is_head(deal->from)) violation("microbatches of nobody are dealt again");
    for (const auto& [m, session] : deal->to)
      if (!is_head(session)) violation(fmt::format("microbatch {} is dealt to nobody", m));
  } else if (const auto* attempt = std::get_if<coordinator::AttemptRecord>(&record)) {
    without(attempt->absent);
  } else if (const auto* init = std::get_if<coordinator::InitRecord>(&record)) {
    version_ = newest_ = init->version;
    live_.clear();
    moved_.clear();
  }
  if (coordinator::is_decision(record)) ++epoch_;
}

void Checkers::holds(PeerId peer, StageId stage, std::uint64_t version, const Weights& weights) {
  const bool held_before = std::ranges::any_of(
      past_, [&](Past& past) { return version <= past.version && weights == past.reference.weights(stage, version); });
  if (plan_.sync_every == 0 && !held_before && weights != reference_.weights(stage, version))
    violation(fmt::format("worker {} of stage {} holds other weights of version {} than the run without faults", peer,
                          stage, version));
  // A commit that a restarted coordinator does not know would show here.
  if (version > newest_)
    violation(fmt::format("worker {} is at version {}, the log never was above {}", peer, version, newest_));
}

void Checkers::weighs(PeerId peer, StepId step, double scale, std::size_t microbatches) {
  const double counted = scale * static_cast<double>(microbatches), all = plan_.training_count(step);
  if (std::abs(counted - all) > 1e-9 * all)
    violation(fmt::format("worker {} takes step {} with {} microbatches times {}, the step has {}", peer, step,
                          microbatches, scale, all));
}

void Checkers::agrees(PeerId peer, StageId stage, const protocol::Commit& commit, const Weights& anchor) {
  if (agreed_.try_emplace({stage, commit.epoch}, anchor).first->second != anchor)
    violation(fmt::format("worker {} of stage {} made something else of step {} than its siblings", peer, stage,
                          commit.step));
}

void Checkers::bounds(PeerId peer, const Kept& kept, const Kept& most) {
  const auto check = [&](std::uint64_t has, std::uint64_t limit, const char* what) {
    if (has > limit) violation(fmt::format("worker {} keeps {} {}, at most {} are allowed", peer, has, what, limit));
  };
  check(kept.custody_bytes, most.custody_bytes, "bytes");
  check(kept.held, most.held, "messages");
  check(kept.samples, most.samples, "samples");
}

void Checkers::over(const std::optional<coordinator::RunEnded>& end, Duration late) {
  if (!end)
    violation(fmt::format("the run has not finished {:.0f} s after its last fault; {} of {} steps committed",
                          to_seconds(late), version_, plan_.final_step()));
  else if (!end->finished && (version_ != plan_.final_step().value || bad_in_a_row_ < 2))
    // Of a run whose last steps were all bad it is right to say that it did not end well.
    violation("the run ended before its time: " + end->reason);
  else if (end->finished && version_ != plan_.final_step().value)
    violation(
        fmt::format("the run says that it has finished, but the log has {} of {} steps", version_, plan_.final_step()));
}

}  // namespace isthmus::sim
