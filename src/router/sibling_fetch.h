#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "router/piece_requests.h"
#include "router/worker_context.h"

namespace isthmus {

// How a worker that is not a member catches up with its stage's other replicas while training goes on: the stage's
// combined gradients of the commits it missed, if the siblings still have them, otherwise a snapshot and then those.
// A piece comes from any sibling, since all hold the same bits. Replicas that step on their own hold alike what they agreed
// on, so that is what comes: the syncs it missed, or the weights of the last one.
class SiblingFetch {
 public:
  explicit SiblingFetch(WorkerContext& context) : context_(context), requests_(context) {}

  void stop();
  // REQUIRES: not a member, behind, with live siblings. Call on every view and tick.
  void pursue(std::uint64_t version, Time now);
  // True if the message was one that this worker asked for. May move `version` on.
  bool received(const Chunk& chunk, PeerId from, std::uint64_t& version, Time now);
  void received(const Absent& absent, PeerId from, Time now);
  // The snapshot, or the sync, is in the weights, or was not fit for it: then the next thing fetched is a snapshot.
  void restored(bool fit) {
    restoring_ = false;
    distrusts_updates_ = !fit;
  }
  bool restoring() const { return restoring_; }
  void forget_asked(PeerId peer) { requests_.forget_asked(peer); }
  Time next_due() const { return requests_.next_due(); }
  std::string progress() const;

 private:
  enum class Wants { kNothing, kUpdate, kSnapshot };
  void begin_update(std::uint64_t version);
  void begin_snapshot();
  std::uint64_t bytes() const;
  std::uint64_t newest() const;
  std::uint64_t after(std::uint64_t version) const;
  std::uint64_t update_bytes(std::uint64_t version) const;
  bool updates_are_cheaper(std::uint64_t version) const;

  WorkerContext& context_;
  PieceRequests requests_;
  Wants wants_ = Wants::kNothing;
  bool restoring_ = false;
  bool distrusts_updates_ = false;
  std::uint64_t version_ = 0;             // of what is being fetched
  std::uint64_t whole_ = 0;               // bytes of an update, once they are known
  std::map<std::uint32_t, SharedBytes> pieces_;
  std::string digest_;
  Commit commit_;
};

}  // namespace isthmus
