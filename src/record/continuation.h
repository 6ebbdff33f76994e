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

// The newest checkpoint that every stage has.
struct WholeVersion {
  std::uint64_t version = 0;  // 0: the run never had one
  std::string lost{};         // a sentence about newer ones that are gone; empty: none is
};
// An error if a stage has none left of those that were written.
Result<WholeVersion> whole_version(const RunFolder& folder, std::uint32_t stages);

}  // namespace isthmus::record
