#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "record/folder_claim.h"
#include "spec/run_config.h"

namespace isthmus::record {

// The folder a run leaves behind (--out): names of its files, and who may write there.
struct RunFolder {
  std::string path;

  std::string run_file() const { return path + "/run.toml"; }
  // What this machine has of its own, for the workers that `train` starts.
  std::string host_file() const { return path + "/host.toml"; }
  std::string metrics() const { return path + "/metrics.jsonl"; }
  std::string events() const { return path + "/events.jsonl"; }
  std::string summary() const { return path + "/summary.json"; }
  std::string trace() const { return path + "/trace.json"; }
  std::string fleet() const { return path + "/fleet.toml"; }
  std::string decision_log() const { return path + "/coordinator.log"; }
  // Who the coordinator is; made at its first start and kept.
  std::string coordinator_identity() const { return path + "/coordinator.key"; }
  std::string relay_key() const { return path + "/relay.key"; }
  std::string checkpoints() const { return path + "/checkpoint"; }
  // Which run's checkpoint this one began from, if it did.
  std::string origin() const { return checkpoints() + "/from.json"; }
  // Lets others ask the coordinator to take part.
  std::string join_file() const { return path + "/join"; }
  // Where the run's vault is, if it has one: a folder, from this one on, or a bucket.
  std::string vault_place() const { return path + "/vault.place"; }
  std::string owner_key() const { return path + "/owner.key"; }
  std::string owner_public_key() const { return path + "/owner.pub"; }
  // Of the worker-th that `isthmus train` starts, from 1.
  std::string worker_home(std::uint32_t worker) const { return path + "/worker-" + std::to_string(worker); }
};

// The folder that is a worker's own (--home): who it is, and what it keeps.
struct WorkerHome {
  std::string path;

  std::string identity() const { return path + "/identity.key"; }
  // With which it joined last.
  std::string invite() const { return path + "/invite"; }
  // One process at a time is this worker.
  std::string lock() const { return path + "/lock"; }
  std::string checkpoints() const { return path + "/checkpoint"; }
  std::string journal() const { return path + "/journal"; }
  // One folder per stage: a replica that moves must never take what it sent from one stage for what it sends from
  // another.
  std::string journal(std::uint32_t stage) const { return journal() + "/stage-" + std::to_string(stage); }
  std::string trace() const { return path + "/worker.trace"; }
};

// Where a run starts from.
struct RunStart {
  std::uint64_t version = 0;           // weights to load; 0: initial ones
  std::vector<std::string> changes{};  // of a run that goes on: sentences about what is not as before
  FolderClaim claim{};                 // to be kept as long as the run goes on
};

// What is in the folder already: nothing, or it is refused; nothing that is kept; the run to go on with.
enum class Begin { kFresh, kCleared, kResumed };

// An error if the folder holds a run, or a part of one.
Status check_no_run(const RunFolder& folder);

// Prepares the folder for a fresh run or for the continuation of one: the run file must describe the same model, data
// and training (record/continuation.h), the newest checkpoint that every stage has is taken, and lines of later steps
// are cut from metrics.jsonl. Nothing is changed on error, or before the folder is claimed. Writes run.toml, the
// resolved run, where the shards were found included.
Result<RunStart> open_run_folder(const RunFolder& folder, const spec::RunConfig& run, Begin begin);

// The lines of metrics.jsonl that belong to a run whose newest committed step is `version`.
Result<std::string> metrics_until(const std::string& path, std::uint64_t version);

}  // namespace isthmus::record
