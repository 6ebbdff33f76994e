#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/advertised.h"
#include "app/token_server.h"
#include "base/result.h"
#include "record/run_folder.h"
#include "relay/pass.h"
#include "spec/run_config.h"

namespace isthmus::app {

// The process that serves a run: sockets, log, output files and display around scheduler/coordinator/coordinator.h.
struct CoordinatorOptions {
  record::RunFolder folder;
  // Begins, or begins again, from the weights of this version; nothing: goes on where the log ends.
  std::optional<std::uint64_t> begin_at;
  std::string host = "127.0.0.1";
  // Control; then bulk, the door for those who want to join, and the relay, one after the other. 0: any.
  std::uint16_t port = 0;
  std::vector<Advertised> advertise;
  bool no_relay = false;
  std::vector<relay::RelayName> relays;  // of others
  // Where checkpoints are kept (app/run_vault.h); empty: on the workers' disks alone.
  std::string vault;
  std::string owner_key;     // file; empty: the one in the folder
  std::size_t expected = 0;  // so many workers are waited for, some seconds at most, before the first gets a seat
  // Lines of a supervisor: "stop CODE REASON" ends the run; "lost IDENTITY" and "gone IDENTITY WHY" say that the
  // process of the worker with this identity key, in hexadecimal, has ended, and that it will not come back. Hints:
  // without them the same is found out from silence. -1: none.
  int control_fd = -1;
};

// Returns the process's exit code. `tokens`: of this run.
int serve_coordinator(const spec::RunConfig& run, const CoordinatorOptions& options, TokenServer tokens);

}  // namespace isthmus::app
