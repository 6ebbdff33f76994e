#pragma once

#include <cstdint>

#include "protocol/message.h"
#include "router/worker_context.h"

namespace isthmus::router {

enum class Fence : std::uint8_t {
  kPass,
  kHold,    // a newer view has to explain it
  kRefuse,  // from nobody who could send it, or of another life, step, attempt or microbatch
};

// Which messages of the running step a worker believes (docs/protocol.md: "A worker refuses"). `version`: of its
// weights.
Fence judge(const WorkerContext& context, std::uint64_t version, PeerId from, const protocol::StepTag& tag);

// Which way a message of the step goes: to a later stage, to an earlier one, or between replicas of one.
template <class Body>
constexpr int direction() {
  if constexpr (std::is_same_v<Body, protocol::Forward> || std::is_same_v<Body, protocol::Ask> ||
                std::is_same_v<Body, protocol::Cancel> || std::is_same_v<Body, protocol::Probe>)
    return 1;
  else if constexpr (std::is_same_v<Body, protocol::Part> || std::is_same_v<Body, protocol::Total>)
    return 0;
  else
    return -1;
}

// Whether the microbatch comes from (way 1), or comes back from (way -1), that stage to this one.
bool is_neighbour(const WorkerContext& context, MicrobatchId m, StageId sender, int way);

// Whether a message of a member may come from its stage. REQUIRES: judge() let it pass.
template <class Body>
bool comes_the_right_way(const WorkerContext& context, const Body& body) {
  const StageId sender = context.view.find(body.tag.from)->stage, own = context.identity.stage;
  if constexpr (requires { body.microbatch; })
    return is_neighbour(context, body.microbatch, sender, direction<Body>());
  else
    return direction<Body>() == (sender < own ? 1 : sender > own ? -1 : 0);
}

}  // namespace isthmus::router
