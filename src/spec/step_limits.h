#pragma once

#include <cstdint>

namespace isthmus::spec {

// Stages of a run, as configs/run.schema.json has it.
inline constexpr std::uint32_t kStagesMax = 1024;

// Visits of a stage by a microbatch in one step: the predictor keeps some hundred bytes of each.
inline constexpr std::uint64_t kVisitsMax = 1 << 22;

// No part of a step may take longer, compute or transfers: 31 years. Whole steps stay far below what Duration can hold.
inline constexpr double kStepSecondsMax = 1e9;

}  // namespace isthmus::spec
