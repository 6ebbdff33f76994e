#pragma once

#include <filesystem>

#include "base/output_file.h"
#include "base/result.h"

namespace isthmus::app {

// The folder that `isthmus export` makes. It is made beside its place and may take that of an earlier one.

// Refuses a folder that holds anything else than files that an export writes; it may be empty.
Status check_holds_export(const std::filesystem::path& folder);

enum class Placed { kNew, kExchanged };

// Puts the folder `beside` in the place of `target`, if there is nothing or an empty folder; with kReplaced also if it
// holds an export, which is at `beside` then.
Result<Placed> place_export(const std::filesystem::path& beside, const std::filesystem::path& target,
                            Existing existing);

}  // namespace isthmus::app
