#pragma once

#include <cstdint>

namespace isthmus::stage {

// Bytes that a process can still have of the machine's memory.
std::uint64_t available_memory();

}  // namespace isthmus::stage
