// What the device is given, and what comes back from it.

#include <algorithm>
#include <utility>

#include "router/worker_steps.h"

namespace isthmus::router {

void WorkerSteps::run_next(Time now) {
  if (running_ || life_ != Life::kServing || loading_ > 0 || !context_.live() ||
      context_.view.step.value != version_ + 1)
    return;
  auto run = flow_.next(now);
  if (!run) return;
  running_ = Running{run->tag, run->task};
  context_.run(std::move(*run));
}

std::vector<protocol::WorkerEffect> WorkerSteps::job_done(protocol::JobResult result, Time now) {
  if (life_ >= Life::kReleased && !std::holds_alternative<protocol::SaveDone>(result)) return finish(now);
  if (const auto* operation = std::get_if<protocol::OperationDone>(&result)) {
    if (running_ == Running{operation->tag, operation->task}) running_.reset();
    operation_done(*operation, now);
  } else if (const auto* closed = std::get_if<protocol::CloseDone>(&result)) {
    combination_.closed(*closed, now);
  } else if (const auto* added = std::get_if<protocol::AddDone>(&result)) {
    combination_.added(*added);
  } else if (auto* updated = std::get_if<protocol::UpdateDone>(&result)) {
    exchange_.updated(std::move(*updated), now);
  } else if (auto* agreed = std::get_if<protocol::AgreeDone>(&result)) {
    exchange_.agreed(std::move(*agreed), now);
    tell(preparation_.pursue(now));
  } else if (auto* prepared = std::get_if<protocol::PrepareDone>(&result)) {
    tell(preparation_.done(std::move(*prepared), now));
  } else if (const auto* save = std::get_if<protocol::SaveDone>(&result)) {
    --saves_;
    if (!save->error.empty())
      warning_ = save->error;              // training goes on while the replicas hold the weights
    else if (save->timeline == timeline_)  // else the run went back while it was written
      checkpointed_ = std::max(checkpointed_, save->version);
    report_changed_ = true;
    last_report_ = Time{};
    if (life_ == Life::kReleased && saves_ == 0) leave();
  } else if (auto* warned = std::get_if<protocol::Warned>(&result)) {
    warning_ = std::move(warned->text);
    report_changed_ = true;
  } else if (auto* digests = std::get_if<protocol::DigestsDone>(&result)) {
    weights_ = std::move(digests->weights);
    digests_here_ = true;
  } else if (const auto* loaded = std::get_if<protocol::LoadDone>(&result)) {
    if (fetch_.restoring()) {
      fetch_.restored(loaded->error.empty());
      if (!loaded->error.empty()) warning_ = loaded->error;
      if (loaded->error.empty() && loading_ == 0) version_ = loaded->version;
    } else {
      if (loading_ > 0) --loading_;
      if (!loaded->error.empty()) {
        fault_ = loaded->error;
      } else if (loading_ == 0) {  // else the run went back meanwhile, and what counts is read next
        version_ = loaded->version;
        // What could not be loaded is not there, whatever was thought.
        checkpointed_ = save_started_ = std::min(checkpointed_, version_);
      }
    }
    report(now);
  } else if (const auto* snapshot = std::get_if<protocol::SnapshotDone>(&result)) {
    donor_.snapshot_done(*snapshot, now);
  } else if (const auto* recalled = std::get_if<protocol::RecallDone>(&result)) {
    donor_.recalled(*recalled);
  }
  if (life_ >= Life::kReleased) return finish(now);
  if (context_.view.phase != protocol::Phase::kRunning)
    leave_phase(now);
  else if (!context_.live())
    catch_up(now);
  run_next(now);
  return finish(now);
}

void WorkerSteps::operation_done(const protocol::OperationDone& done, Time now) {
  const bool repeated = rebuild_.operation_done(done);
  if (!repeated && (done.tag != context_.job_tag() || life_ != Life::kServing || !context_.live())) return;
  if (!done.error.empty()) {
    fault_ = done.error;
    report(now);
    return;
  }
  if (repeated) return;
  const auto before = flow_.done().size();
  flow_.operation_done(done, now);
  if (flow_.done().size() == before) return;
  report_changed_ = true;
  // Its share is done, for all it knows: siblings may be waiting for it.
  const bool idle = flow_.schedule().queued() == 0 && flow_.schedule().in_flight() == 0;
  if (idle && context_.own_stage().size() > 1) last_report_ = std::min(last_report_, now - kCoalesce);
  tell(preparation_.pursue(now));
}

}  // namespace isthmus::router
