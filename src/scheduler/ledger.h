#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/done_set.h"
#include "base/ids.h"
#include "scheduler/report.h"
#include "scheduler/step_paths.h"
#include "scheduler/view.h"

namespace isthmus {

// Which live member owns (stage, microbatch) of the running step, from their Reports. Volatile: a restarted
// coordinator fills it again from the next Reports.
class Ledger {
 public:
  struct Entry {
    DoneSet done;
    EpochId prepared_epoch;
    std::vector<UnitNorm> norms;
    bool finite = true;
    std::string sum_digest;
    std::map<MicrobatchId, MicrobatchLoss> losses;
  };

  // Forgets everything; the step has `count` microbatches.
  void begin(std::uint32_t count);
  void forget(SessionId session) { entries_.erase(session); }
  // REQUIRES: the report is of the running (step, attempt) and of a live member.
  void record(const Report& report);

  struct Verdict {
    // Every visit of a stage by a microbatch has exactly one owner.
    bool complete = false;
    // A second owner of a microbatch inside one stage: impossible by the protocol, so one of them has to go.
    std::optional<SessionId> duplicate;
  };
  Verdict verdict(const std::vector<Member>& live, const StepPaths& paths) const;
  bool all_prepared(const std::vector<Member>& live, EpochId epoch) const;

  std::uint32_t count() const { return count_; }
  const std::map<SessionId, Entry>& entries() const { return entries_; }

 private:
  std::uint32_t count_ = 0;
  std::map<SessionId, Entry> entries_;
};

}  // namespace isthmus
