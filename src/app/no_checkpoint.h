#pragma once

#include "protocol/message.h"

namespace isthmus::app {

// The answer to who asks for a checkpoint that is not here, or not for it.
inline protocol::CheckpointPiece no_checkpoint(const protocol::CheckpointRequest& request) {
  return {{request.version, request.timeline, 0, ""}, request.index, {}};
}

}  // namespace isthmus::app
