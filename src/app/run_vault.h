#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "protocol/plan.h"
#include "record/run_folder.h"
#include "spec/run_config.h"
#include "store/sealed_checkpoints.h"

namespace isthmus::app {

// The vault of a run: where it is stands in OUT/vault.place, and its secret follows from the owner's key.

// `place`: what store::open_vault takes, or "vault", the folder OUT/vault. In it the run is named by its id and its
// coordinator's key, so that two runs of one run file may share it.
Result<store::SealedCheckpoints> open_run_vault(const record::RunFolder& folder, const std::string& place,
                                                std::uint64_t run_id, const std::string& owner_key);
// Where it was opened last; empty: nowhere.
std::string vault_place_of(const record::RunFolder& folder);
Status keep_vault_place(const record::RunFolder& folder, const std::string& place);

// Brings a version of every stage, `step` or the newest that the vault has of all, into the run's checkpoints, where
// the other commands read them; what is there already stays. Goes on where it was interrupted. No effect without a
// vault, or if it has no such version of all stages.
Status bring_checkpoints(const record::RunFolder& folder, const spec::RunConfig& run, const protocol::Plan& plan,
                         const std::string& owner_key, std::optional<std::uint64_t> step);

}  // namespace isthmus::app
