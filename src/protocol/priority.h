#pragma once

#include <cstdint>

namespace isthmus::protocol {

// Order in which waiting frames leave an uplink: small control first, then gradients, then activations, then state and
// the bulk of a link's measurement. Ask goes with the activations: it must not overtake the Forward it asks about, or
// every answer would be "Free".
enum class Priority : std::uint8_t { kControl, kGradient, kActivation, kState };

}  // namespace isthmus::protocol
