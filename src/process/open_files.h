#pragma once

#include <cstdint>

#include "base/result.h"

namespace isthmus::process {

// How many files and connections a process of a run with so many workers may have open at once.
std::uint64_t open_files_of(std::uint64_t workers);
// Raises this process's limit as far as it may be raised; an error, naming the number that is needed, if that is not
// enough.
Status allow_open_files(std::uint64_t needed);
// Raises it as far as it may be raised, and says how far that is: at least 256.
std::uint64_t allow_most_open_files();

}  // namespace isthmus::process
