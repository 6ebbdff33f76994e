// A worker that was asked to leave.

#include <fmt/format.h>

#include <algorithm>

#include "router/worker_steps.h"

namespace isthmus::router {

std::vector<protocol::WorkerEffect> WorkerSteps::say_good_bye(Time now) {
  if (is_leaving() || life_ >= Life::kReleased) return finish(now);
  leave_by_ = now + std::max(kPatience, 4 * step_takes_);
  if (context_.live()) flow_.leaves();
  if (!context_.live() && context_.view.phase == protocol::Phase::kRunning) catch_up(now);
  report(now);
  return finish(now);
}

// A run that ends takes its own time.
Time WorkerSteps::goes_at() const {
  const bool of_itself = life_ == Life::kReleased || context_.view.phase == protocol::Phase::kRunning;
  return of_itself ? leave_by_ : kNever;
}

std::vector<protocol::WorkerEffect> WorkerSteps::leave_at_once(Time now) {
  leave_by_ = std::min(leave_by_, now);
  going_ = true;
  report(now);
  leave();
  return std::exchange(context_.effects, {});
}

// The step that was committed with its part is one that it gave. If nobody else has the weights that it takes away,
// they are on its disk when it comes back.
void WorkerSteps::be_released(const protocol::View& view, Time now) {
  if (life_ >= Life::kReleased) return;
  const bool serves = context_.live() && view.timeline() == timeline_;
  const bool alone = serves && context_.own_stage().size() == 1;
  if (serves && view.last_commit && view.last_commit->step.value == version_ + 1 &&
      preparation_.ready_in(view.last_commit->epoch))
    apply_commit(*view.last_commit, now);
  life_ = Life::kReleased;
  if (alone && fault_.empty() && loading_ == 0) save(version_);
  if (saves_ == 0) leave();
}

std::string WorkerSteps::stays_for() const {
  if (life_ == Life::kReleased) return fmt::format("writes its checkpoint of step {}, then leaves", version_);
  if (context_.view.phase != protocol::Phase::kRunning) return "the run ends, and it with it";
  if (!context_.live()) return "gives its seat back, then leaves";
  const auto replicas = context_.own_stage();
  const bool alone = std::ranges::all_of(replicas, [&](const protocol::Member* member) {
    return member->session == context_.session ||
           std::ranges::find(context_.view.leaving, member->session) != context_.view.leaving.end();
  });
  return fmt::format("finishes step {}{}, then leaves", context_.view.step,
                     alone ? ", and gives its weights to whoever comes in its place" : "");
}

}  // namespace isthmus::router
