#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "router/piece_requests.h"
#include "router/worker_context.h"

namespace isthmus::router {

// How a worker that is not a member catches up with its stage's other replicas while training goes on: the stage's
// combined gradients of the commits it missed, if the siblings still have them, otherwise a snapshot and then those.
// A piece comes from any sibling, since all hold the same bits. Replicas that step on their own hold alike what they
// agreed on, so that is what comes: the syncs it missed, or the weights of the last one.
class SiblingFetch {
 public:
  explicit SiblingFetch(WorkerContext& context) : context_(context), requests_(context) {}

  void stop();
  // REQUIRES: not a member, behind, with live siblings. Call on every view and tick.
  void pursue(std::uint64_t version, Time now);
  // True if the message was one that this worker asked for. May move `version` on.
  bool received(const protocol::Chunk& chunk, PeerId from, std::uint64_t& version, Time now);
  void received(const protocol::Absent& absent, PeerId from, Time now);
  // The snapshot, or the sync, is in the weights, or was not fit for it: then the next thing fetched is a snapshot.
  void restored(bool fit) {
    restoring_ = false;
    distrusts_updates_ = !fit;
    follows_ = fit;
  }
  bool restoring() const { return restoring_; }
  void forget_asked(PeerId peer) { requests_.forget_asked(peer); }
  Time next_due() const { return requests_.next_due(); }
  std::string progress() const;
  // How far the newest snapshot was when another sibling began to give it or was lost, or when it was whole; for
  // people.
  const std::string& news() const { return news_; }

 private:
  enum class Wants { kNothing, kUpdate, kSnapshot };
  void clear();
  void begin_update(std::uint64_t version);
  void begin_snapshot();
  std::uint64_t bytes() const;
  std::uint64_t newest() const;
  std::uint64_t after(std::uint64_t version) const;
  std::uint64_t update_bytes(std::uint64_t version) const;
  bool updates_are_cheaper(std::uint64_t version) const;
  void look_elsewhere(Time now);
  void note_lost_givers();
  void tell();

  WorkerContext& context_;
  PieceRequests requests_;
  Wants wants_ = Wants::kNothing;
  bool restoring_ = false;
  bool distrusts_updates_ = false;
  bool follows_ = false;       // a snapshot of this fetch is in the weights
  std::uint64_t version_ = 0;  // of what is being fetched
  std::uint64_t whole_ = 0;    // bytes of an update, once they are known
  std::map<std::uint32_t, SharedBytes> pieces_;
  struct Giver {
    PeerId peer;
    std::uint32_t pieces = 0;
    bool lost = false;  // no member any more
  };
  // Pieces are of this snapshot. Who gave of one before that nobody else had is still named: people want to know.
  std::map<SessionId, Giver> givers_;
  std::string news_;
  Time refused_{};  // by all siblings, the snapshot that was the newest
  std::string digest_;
  protocol::Commit commit_;
};

}  // namespace isthmus::router
