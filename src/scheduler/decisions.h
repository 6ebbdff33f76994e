#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "scheduler/plan.h"
#include "scheduler/view.h"

namespace isthmus {

// The records of the coordinator's log. Each is written and synced before anything that follows from it is sent.
struct InitRecord {
  std::uint64_t version = 0;  // weights the run starts from; step version + 1 begins
  friend bool operator==(const InitRecord&, const InitRecord&) = default;
};
struct AdmitRecord {
  Member member;
  std::uint64_t version = 0;
  friend bool operator==(const AdmitRecord&, const AdmitRecord&) = default;
};
struct ExpelRecord {
  SessionId session;
  std::string reason;
  friend bool operator==(const ExpelRecord&, const ExpelRecord&) = default;
};
struct CommitRecord {
  Commit commit;
  friend bool operator==(const CommitRecord&, const CommitRecord&) = default;
};
struct CheckpointRecord {
  StageId stage;
  std::uint64_t version = 0;
  friend bool operator==(const CheckpointRecord&, const CheckpointRecord&) = default;
};
using LogRecord =
    std::variant<InitRecord, AdmitRecord, ExpelRecord, CommitRecord, CheckpointRecord>;

// What the log says: a pure function of its records. Everything else the coordinator knows returns in Reports.
// Checkpoint records do not count as decisions: a new epoch would void combinations that are under way.
class Decisions {
 public:
  explicit Decisions(const Plan& plan);

  void apply(const LogRecord& record);

  EpochId epoch;
  StepId step;  // 0 until Init
  std::uint32_t attempt = 0;
  std::vector<Member> live;             // by (stage, replica)
  std::vector<SessionId> head_owner;    // per microbatch
  std::vector<bool> head_again;         // per microbatch
  std::optional<Commit> last_commit;
  std::map<PeerId, SessionId> last_session;
  std::set<SessionId> used_sessions;    // every session ever admitted
  std::vector<std::uint64_t> checkpointed;  // per stage

  const Member* find(SessionId session) const;
  const Member* live_of(PeerId peer) const;
  bool stage_is_empty(StageId stage) const;

 private:
  void begin_step(StepId next);
  // Gives every microbatch without an owner to a live head member, in turn.
  void deal_heads();

  Plan plan_;
};

}  // namespace isthmus
