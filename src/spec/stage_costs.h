#pragma once

#include <cstdint>

#include "spec/run_spec.h"

namespace isthmus::spec {

// Floating-point operations of layers first … end-1, forward, for one token; with the token path, and with the head if
// end is the last. Every matrix but a table meets every token once, attention mixes half the context on average, and
// codecs with coefficients make U·z twice a layer. I and W cost as much again, each. `run` is resolved.
double forward_operations(const RunSpec& run, std::uint32_t first_layer, std::uint32_t end_layer);

// Those of a layer in the middle, which neither embeds nor has the head, alone: the token path, which a stage has once,
// is not the layer's. factored_layers may be open.
double middle_layer_operations(const RunSpec& run);

// Those of the head among them.
double head_operations(const RunSpec& run);

// Bits that one way of a boundary carries in a step at most, whatever the codec, with what loss repeats.
double step_bits_most(const RunSpec& run);

}  // namespace isthmus::spec
