#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/time.h"
#include "protocol/plan.h"
#include "protocol/report.h"
#include "scheduler/coordinator/coordinator.h"
#include "scheduler/coordinator/decisions.h"
#include "sim/arithmetic.h"

namespace isthmus::sim {

// What must be true of every run, whatever breaks (docs/protocol.md, "Invariants"). Sees the log, the reports as they
// leave the workers, the weights and the accumulators; shares no code with what it checks.
class Checkers {
 public:
  Checkers(const protocol::Plan& plan, std::uint64_t seed) : plan_(plan), reference_(plan, seed) {}

  // A record reached the log's disk. `sums`: what every live process has in its accumulator, by session.
  void logged(const coordinator::LogRecord& record, const std::map<SessionId, std::multiset<std::uint32_t>>& sums);
  void reported(const protocol::Report& report);
  // A worker's weights became those of `version`, by whatever way. Where replicas step on their own, nobody knows which
  // they are.
  void holds(PeerId peer, StageId stage, std::uint64_t version, const Weights& weights);
  // A replica that steps on its own counts its microbatches as if they were all of the step's.
  void weighs(PeerId peer, StepId step, double scale, std::size_t microbatches);
  // What replicas that step on their own agreed on became this by the commit: with all of its stage the same.
  void agrees(PeerId peer, StageId stage, const protocol::Commit& commit, const Weights& anchor);
  // What a worker keeps: bytes in custody, messages for a newer view, samples to read.
  struct Kept {
    std::uint64_t custody_bytes = 0;
    std::size_t held = 0;
    std::size_t samples = 0;
  };
  void bounds(PeerId peer, const Kept& kept, const Kept& most);
  // The run is over, or its time is: `end` says how it ended, none that it has not, `late` after its last fault.
  void over(const std::optional<coordinator::RunEnded>& end, Duration late);
  void violation(std::string what);

  const std::vector<std::string>& violations() const { return violations_; }
  std::uint64_t commits() const { return commits_; }
  Reference& reference() { return reference_; }

 private:
  void without(const std::vector<StageId>& absent);
  struct Live {
    PeerId peer;
    SessionId session;
    StageId stage;
  };
  // What was true before the run went back and left steps out: a worker may not have heard of it yet.
  struct Past {
    Reference reference;
    std::uint64_t version = 0;  // that it had come to
  };
  const protocol::Plan plan_;
  Reference reference_;
  std::vector<Past> past_;
  std::uint64_t epoch_ = 0;         // decisions so far
  std::uint64_t version_ = 0;       // committed
  std::uint64_t newest_ = 0;        // ever committed: a worker may not have heard of a rollback yet
  std::uint64_t bad_in_a_row_ = 0;  // training steps up to the last one that changed no weights
  std::uint64_t commits_ = 0;
  std::vector<Live> live_;
  std::map<PeerId, StageId> moved_;
  std::set<SessionId> admitted_;
  std::map<SessionId, EpochId> prepared_;
  std::map<SessionId, std::uint64_t> durable_;
  std::map<std::pair<StageId, EpochId>, Weights> agreed_;  // by the commit's epoch
  std::vector<std::string> violations_;
};

}  // namespace isthmus::sim
