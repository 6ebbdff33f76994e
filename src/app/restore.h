#pragma once

#include "app/owned_run.h"
#include "base/result.h"
#include "record/run_folder.h"
#include "spec/run_config.h"

namespace isthmus::app {

// `isthmus train --from`: a new run that goes on from another one's checkpoint, on another layer-to-stage map, with
// other replicas.
struct RestoreOptions {
  OwnedRunOptions from;
  bool allow_model_change = false;  // also where the new map makes another model of it (stage/recut.h)
};

// Prepares the folder for the run, with a checkpoint of every stage to start from: all of them or none. Errors name all
// that differs or is missing.
Result<record::RunStart> restore(const record::RunFolder& folder, const spec::RunConfig& run, record::Begin begin,
                                 const RestoreOptions& options);

}  // namespace isthmus::app
