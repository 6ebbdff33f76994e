#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "base/ids.h"
#include "scheduler/coordinator/decisions.h"

namespace isthmus::coordinator {

// Which stages somebody may serve, so that no stranger sees more of a model than is needed. Whoever came with an invite
// that the owner marked as trusted, or was vouched for by this machine, may serve all of them. Pure.
struct Trust {
  std::uint32_t stages = 0;  // of the run
  // The first and the last stage, with embedding, head, losses and held-out text, are for trusted peers alone.
  bool owner_ends = false;
  // Different stages that one identity may have a seat at, over the whole run; never all of them. 0: any number.
  std::uint32_t stages_per_identity = 0;

  // Why not, for people; empty: it may.
  std::string objection(const Decisions& decisions, PeerId peer, StageId stage) const;
  bool allows(const Decisions& decisions, PeerId peer, StageId stage) const {
    return objection(decisions, peer, stage).empty();
  }
  // Stages that it may not serve.
  std::set<StageId> barred(const Decisions& decisions, PeerId peer) const;
};

}  // namespace isthmus::coordinator
