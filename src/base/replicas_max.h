#pragma once

#include <cstdint>

namespace isthmus {

// Replicas that a stage may have; the schema says the same. Two things of the protocol hold no more: a worker's first
// view names every member of five stages in one frame (transport/transport.h), and it keeps connections to those of its
// own and of two stages on either side.
inline constexpr std::uint32_t kReplicasMax = 128;

}  // namespace isthmus
