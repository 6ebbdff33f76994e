#pragma once

#include <vector>

#include "base/bytes.h"
#include "protocol/effects.h"
#include "protocol/plan.h"

namespace isthmus::router {

// What the coordinator says to all that these effects ask it for.
inline std::vector<protocol::TokenIds> answered_tokens(const protocol::Plan& plan,
                                                       const std::vector<protocol::WorkerEffect>& effects) {
  std::vector<protocol::TokenIds> answers;
  for (const auto& effect : effects) {
    const auto* send = std::get_if<protocol::SendMessage>(&effect);
    const auto* request = send ? std::get_if<protocol::TokenRequest>(&send->message) : nullptr;
    if (!request) continue;
    for (MicrobatchId m(0); m.value < request->microbatches.count(); m = MicrobatchId(m.value + 1))
      if (request->microbatches.contains(m))
        answers.push_back(protocol::token_ids({request->step, m}, Bytes(plan.token_bytes, 't')));
  }
  return answers;
}

}  // namespace isthmus::router
