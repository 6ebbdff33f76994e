#pragma once

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/plan.h"
#include "scheduler/coordinator/decisions.h"
#include "scheduler/coordinator/events.h"

namespace isthmus::coordinator {

// Which stages a step goes without. An inner stage that nobody has served for Plan::skip_after is skipped from the
// running step on, which begins again for that, until somebody serves it, for Plan::skip_steps steps in a row at most;
// then the run waits. Before the first commit every stage is still on its way, and nothing is skipped. Pure; one
// thread.
class Absence {
 public:
  explicit Absence(const protocol::Plan& plan) : plan_(plan) {}

  struct Turn {
    std::optional<AttemptRecord> attempt;  // the step begins again, so
    std::vector<Event> events;
  };
  // Call while the run is running, every moment.
  Turn turn(const Decisions& decisions, Time now);

  // What the next step goes without: as the running one, unless somebody has come back or it has been too long.
  std::vector<StageId> of_next_step(const Decisions& decisions) const;

  // When the step begins again without the stage that nobody serves; nothing: not for all that is known now.
  std::optional<Time> skips_at(const Decisions& decisions, StageId stage) const;

 private:
  protocol::Plan plan_;
  std::map<StageId, Time> empty_since_;
  std::set<StageId> waited_for_;  // may not be skipped any longer, which was said
};

}  // namespace isthmus::coordinator
