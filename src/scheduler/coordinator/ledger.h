#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/done_set.h"
#include "base/ids.h"
#include "protocol/report.h"
#include "protocol/step_paths.h"
#include "protocol/view.h"

namespace isthmus::coordinator {

// Which live member owns (stage, microbatch) of the running step, from their Reports. Volatile: a restarted
// coordinator fills it again from the next Reports. A report costs its own size, a verdict nothing.
class Ledger {
 public:
  struct Entry {
    StageId stage;
    DoneSet done;
    EpochId prepared_epoch;
    std::vector<protocol::UnitNorm> norms;
    bool finite = true;
    std::string sum_digest;
    std::map<MicrobatchId, protocol::MicrobatchLoss> losses;
  };

  // Forgets everything; the step has `count` microbatches on these paths.
  void begin(std::uint32_t count, const protocol::StepPaths& paths);
  void forget(SessionId session);
  // REQUIRES: the report is of the running (step, attempt) and of a live member.
  void record(const protocol::Report& report);

  struct Verdict {
    // Every visit of a stage by a microbatch has exactly one owner.
    bool complete = false;
    // A second owner of a microbatch inside one stage: impossible by the protocol, so one of them has to go.
    std::optional<SessionId> duplicate;
  };
  Verdict verdict() const {
    if (!duplicates_.empty()) return {false, duplicates_.begin()->second};
    return {incomplete_ == 0, std::nullopt};
  }
  // Whether as many as these, all live members, have prepared in this epoch.
  bool all_prepared(std::size_t live, EpochId epoch) const;

  std::uint32_t count() const { return count_; }
  const std::unordered_map<SessionId, Entry>& entries() const { return entries_; }

 private:
  struct Stage {
    DoneSet owned;  // by all replicas
    std::uint32_t owned_count = 0;
    std::uint32_t expected = 0;
  };
  void add(StageId place, SessionId session, const DoneSet& fresh);

  std::uint32_t count_ = 0;
  std::unordered_map<SessionId, Entry> entries_;
  std::vector<Stage> stages_;
  std::uint32_t incomplete_ = 0;             // stages
  std::map<StageId, SessionId> duplicates_;  // who claimed last what another owns
  std::map<EpochId, std::size_t> prepared_;  // entries by their newest epoch
};

}  // namespace isthmus::coordinator
