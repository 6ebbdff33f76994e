#pragma once

#include <fmt/format.h>

#include <compare>
#include <cstdint>
#include <functional>

namespace isthmus {

// A number that can only be compared with, and passed for, numbers of its own kind.
template <class Tag, class Number = std::uint32_t>
struct Id {
  using number_type = Number;
  Number value = 0;

  constexpr Id() = default;
  constexpr explicit Id(Number v) : value(v) {}
  friend constexpr auto operator<=>(Id, Id) = default;
};

// Position of a stage in the pipeline, 0 = the stage that reads the data.
using StageId = Id<struct StageTag>;
// Position of a replica inside its stage.
using ReplicaId = Id<struct ReplicaTag>;
// A process identity known by its CURVE key. 0 is the coordinator; workers count from 1.
using PeerId = Id<struct PeerTag>;
// Position of a microbatch inside a step: training microbatches first, evaluation ones after them.
using MicrobatchId = Id<struct MicrobatchTag>;
// Training steps count from 1: step s turns weights of version s-1 into version s.
using StepId = Id<struct StepTag, std::uint64_t>;
// One life of one worker: random, drawn at process start and after every expulsion, never reused.
using SessionId = Id<struct SessionTag, std::uint64_t>;
// Number of decisions in the coordinator's log; every decision has its own. The only fencing number.
using EpochId = Id<struct EpochTag, std::uint64_t>;

inline constexpr PeerId kCoordinator{0};
inline constexpr SessionId kNoSession{0};

}  // namespace isthmus

template <class Tag, class Number>
struct std::hash<isthmus::Id<Tag, Number>> {
  std::size_t operator()(isthmus::Id<Tag, Number> id) const { return std::hash<Number>{}(id.value); }
};

template <class Tag, class Number>
struct fmt::formatter<isthmus::Id<Tag, Number>> : fmt::formatter<Number> {
  auto format(isthmus::Id<Tag, Number> id, fmt::format_context& context) const {
    return fmt::formatter<Number>::format(id.value, context);
  }
};
