#pragma once

#include <string>

#include "base/result.h"
#include "record/run_folder.h"
#include "store/sealed_checkpoints.h"

namespace isthmus::app {

// Who started a run owns it: OUT/owner.key, a file of its own (0600) that can be taken elsewhere, and OUT/owner.pub,
// which stays. Commands that put the stages of a run together ask for the key. It keeps a contributor's command line
// from doing so; checkpoints can be read by whoever can read the disk they are on. What is in the run's vault is sealed
// with a secret that follows from this key.

// Unless the run has an owner already. `key_file`: of somebody who has a key, which stays where it is; empty: a new
// one.
Status make_owner_key(const record::RunFolder& folder, const std::string& key_file = "");
// `key_file`: empty: OUT/owner.key. An error if there is none, or it is not the owner's.
Status check_owner(const record::RunFolder& folder, const std::string& key_file);
// REQUIRES: the same was well.
Result<store::VaultSecret> vault_secret(const record::RunFolder& folder, const std::string& key_file);

}  // namespace isthmus::app
