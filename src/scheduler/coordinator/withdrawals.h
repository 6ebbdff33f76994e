#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/message.h"
#include "scheduler/coordinator/decisions.h"

namespace isthmus::coordinator {

// Who gets which piece of a checkpoint out of the vault, and when: whoever has a seat at a stage that has no member,
// of that stage alone, and of the version that the log names. All who ask take turns; what they get fills the uplink
// that is said to be there. Pure; one thread.
class Withdrawals {
 public:
  // Pieces that may wait for one peer. What is beyond is left out without a word, for to hear that the vault has not
  // got it ends a fetch: it asks again.
  static constexpr std::size_t kWaitingMax = 64;

  explicit Withdrawals(double bytes_per_second);

  // False: it may not have that.
  bool asked(const Decisions& decisions, PeerId from, const protocol::CheckpointRequest& request);
  // Its connection is gone: it asks again.
  void forget(PeerId peer) { waiting_.erase(peer); }

  struct Piece {
    PeerId to;
    StageId stage;
    protocol::CheckpointRequest request;
    friend bool operator==(const Piece&, const Piece&) = default;
  };
  // What leaves now, `most` pieces at most. Who may not have it any more gets nothing.
  std::vector<Piece> next(const Decisions& decisions, std::size_t most, Time now);
  Time next_due() const { return waiting_.empty() ? kNever : free_at_; }

 private:
  const double bytes_per_second_;
  std::map<PeerId, std::deque<protocol::CheckpointRequest>> waiting_;
  PeerId last_;  // who got something last
  Time free_at_{};
};

}  // namespace isthmus::coordinator
