#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "record/run_folder.h"
#include "spec/run_spec.h"

namespace isthmus::record {

// What differs between the run that the folder holds and the one that is to go on from `version` of it, a sentence each
// with both values. An error if it would be another run: other data, another model, other training.
Result<std::vector<std::string>> changes_of(const RunFolder& folder, const spec::RunSpec& run, std::uint64_t version);

// The newest checkpoint that every stage has; 0 if the run never had one. An error if one that was written is gone.
Result<std::uint64_t> version_to_go_on_from(const RunFolder& folder, std::uint32_t stages);

}  // namespace isthmus::record
