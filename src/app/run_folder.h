#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "config/run_config.h"

namespace isthmus {

// The folder a run leaves behind (--out): names of its files, and who may write there.
struct RunFolder {
  std::string path;

  std::string run_file() const { return path + "/run.toml"; }
  std::string metrics() const { return path + "/metrics.jsonl"; }
  std::string events() const { return path + "/events.jsonl"; }
  std::string summary() const { return path + "/summary.json"; }
  std::string trace() const { return path + "/trace.json"; }
  std::string fleet() const { return path + "/fleet.toml"; }
  std::string decision_log() const { return path + "/coordinator.log"; }
  std::string checkpoints() const { return path + "/checkpoint"; }
  // Which run's checkpoint this one began from, if it did.
  std::string origin() const { return checkpoints() + "/from.json"; }
  // One folder per stage: a replica that moves must never take what it sent from one stage for what it sends from another.
  std::string journal(std::uint32_t peer) const { return path + "/journal/peer-" + std::to_string(peer); }
  std::string journal(std::uint32_t peer, std::uint32_t stage) const { return journal(peer) + "/stage-" + std::to_string(stage); }
  std::string roster() const { return path + "/roster.json"; }
  std::string owner_key() const { return path + "/owner.key"; }
  std::string owner_public_key() const { return path + "/owner.pub"; }
  std::string keys() const { return path + "/keys"; }
  std::string key_file(std::uint32_t peer) const { return keys() + "/peer-" + std::to_string(peer) + ".key"; }
  std::string worker_log(std::uint32_t peer) const { return path + "/worker-" + std::to_string(peer) + ".log"; }
  std::string worker_trace(std::uint32_t peer) const { return path + "/worker-" + std::to_string(peer) + ".trace"; }
};

// Where a run starts from.
struct RunStart {
  std::uint64_t version = 0;  // weights to load; 0: initial ones
};

// An error if the folder holds a run.
Status check_no_run(const RunFolder& folder);

// Prepares the folder for a fresh run (refused if one is there already) or for the continuation of one (the run file
// must describe the same model, data and training; the newest checkpoint that every stage has is taken, and lines of
// later steps are cut from metrics.jsonl). Nothing is changed on error. Writes run.toml, the resolved run.
Result<RunStart> open_run_folder(const RunFolder& folder, const RunConfig& run, bool resume);

// The lines of metrics.jsonl that belong to a run whose newest committed step is `version`.
Result<std::string> metrics_until(const std::string& path, std::uint64_t version);

}  // namespace isthmus
