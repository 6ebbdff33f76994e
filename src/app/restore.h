#pragma once

#include "app/owned_run.h"
#include "app/run_folder.h"
#include "base/result.h"
#include "config/run_config.h"

namespace isthmus {

// `isthmus train --from`: a new run that goes on from another one's checkpoint, on another layer-to-stage map, with other replicas.
struct RestoreOptions {
  OwnedRunOptions from;
  bool allow_model_change = false;  // also where the new map makes another model of it (stage/recut.h)
};

// Prepares the folder for the run, with a checkpoint of every stage to start from: all of them or none. Errors name all that
// differs or is missing.
Result<RunStart> restore(const RunFolder& folder, const RunConfig& run, const RestoreOptions& options);

}  // namespace isthmus
