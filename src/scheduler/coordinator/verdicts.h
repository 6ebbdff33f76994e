#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/plan.h"
#include "protocol/report.h"
#include "scheduler/coordinator/decisions.h"
#include "scheduler/coordinator/events.h"
#include "scheduler/coordinator/ledger.h"
#include "scheduler/coordinator/step_guard.h"

namespace isthmus::coordinator {

// What is wrong with a run, and what follows from it: members that have to go, replicas that are named, stages that
// cannot be repaired, steps that are bad. It proposes; the coordinator carries out. Pure; one thread.
class Verdicts {
 public:
  struct Options {
    StepGuard::Options guard;
    std::uint32_t checkpoints_kept = 2;  // the newest of every stage
  };
  Verdicts(const protocol::Plan& plan, Options options) : plan_(plan), options_(options), guard_(options.guard) {}

  // What was decided.
  void apply(const LogRecord& record);
  // The session counts for nothing any more.
  void forget(SessionId session);
  const StepGuard& guard() const { return guard_; }

  struct Expulsion {
    protocol::Member member;
    std::string reason;
  };
  // A member says that it cannot reach another: they would wait for ever, so the one whose stage can do without it
  // goes.
  static std::optional<Expulsion> unreachable(const Decisions& decisions, SessionId accuser, SessionId accused);
  // Where neither can go: that they wait, each pair once.
  std::optional<events::Unreachable> stuck(const Decisions& decisions, SessionId accuser, SessionId accused);
  // Replicas of a stage must have prepared the same sum. Of those that did not, whoever is in the minority; of two, the
  // later one. REQUIRES: all members have prepared.
  static std::optional<Expulsion> dissenter(const Decisions& decisions, const Ledger& ledger);

  // Replicas that most of their siblings find fault with at one sync, each once for it. Who finds fault with most of
  // its siblings speaks of itself, and where steps are bad honest updates are odd, too: neither is heard.
  std::vector<events::Offender> offenders(const Decisions& decisions, const protocol::Report& report);

  // A stage that comes back repeats the committed steps from the version it holds. True if the next of them has not
  // been kept any more for a while: only going back helps, unless another replica with newer weights appears.
  bool cannot_repeat(const Decisions& decisions, StageId stage, const protocol::Report& report, Time now);

  // What bad steps in a row lead to after a commit: nothing yet, older weights, another try, or the end.
  using AfterBadSteps = std::variant<std::monostate, RollbackRecord, events::Warning, events::Stopping>;
  AfterBadSteps after_bad_steps(const Decisions& decisions) const;

  // Of the last step that trained, and the last evaluation, of this timeline; nothing: there was none yet.
  const std::optional<StepFigures>& last_figures() const { return last_figures_; }
  const std::optional<double>& last_validation() const { return last_validation_; }

  // Why a run whose steps are all committed did not end well: its last steps were all bad, or what it ends with is not
  // finite. Empty: it did.
  std::string objection_to_end() const;

 private:
  std::uint64_t last_good_version(const Decisions& decisions) const;

  protocol::Plan plan_;
  Options options_;
  StepGuard guard_;
  // The newest sync at which siblings found fault with a replica, and who did.
  struct Accusations {
    std::uint64_t version = 0;
    std::set<SessionId> by;
    bool named = false;
  };
  std::map<SessionId, Accusations> accused_;
  std::set<std::pair<SessionId, SessionId>> stuck_;  // members that cannot reach each other, as told
  StepId last_bad_;                                  // of this timeline
  std::map<SessionId, Time> cannot_repeat_since_;
  std::optional<StepFigures> last_figures_;
  std::optional<double> last_validation_;
};

}  // namespace isthmus::coordinator
