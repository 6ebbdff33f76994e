#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "spec/run_config.h"

namespace isthmus::data {

// Told of bytes that were read, of how many.
using ReadProgress = std::function<void(const std::string& path, std::uint64_t done, std::uint64_t bytes)>;

// How a run names the shard in a file: digest and size, wherever it lies. Reads all of it, about a gigabyte a second.
Result<spec::RunSpec::Shard> shard_name(const std::string& path, const ReadProgress& progress = {});

// Names the shards of a run that have no name yet by the files that are found here. A run of emulated devices reads
// none.
Status name_shards(spec::RunConfig& run, const ReadProgress& progress = {});

// An error with both names if the file is another shard than the run's. One that has no name yet may be any.
Status check_shard_name(const std::string& path, const spec::RunSpec::Shard& expected);

}  // namespace isthmus::data
