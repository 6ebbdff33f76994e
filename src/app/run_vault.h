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

// `place`: what store::open_vault takes, or "vault", the folder OUT/vault. Kept in OUT/vault.place.
Result<store::SealedCheckpoints> make_vault(const record::RunFolder& folder, const std::string& place,
                                            std::uint64_t run_id, const std::string& owner_key);
// Nothing: the run has none.
Result<std::optional<store::SealedCheckpoints>> find_vault(const record::RunFolder& folder, std::uint64_t run_id,
                                                           const std::string& owner_key);

// Brings a version of every stage, `step` or the newest that the vault has of all, into the run's checkpoints, where
// the other commands read them; what is there already stays. Goes on where it was interrupted. No effect without a
// vault, or if it has no such version of all stages.
Status bring_checkpoints(const record::RunFolder& folder, const spec::RunConfig& run, const protocol::Plan& plan,
                         const std::string& owner_key, std::optional<std::uint64_t> step);

}  // namespace isthmus::app
