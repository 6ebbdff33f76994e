#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/enroller.h"
#include "record/run_folder.h"

namespace isthmus::app {

// A worker: asks the coordinator that an invite names to take part, waits for a seat, serves it: an io thread (this
// one) around router/worker_steps.h and a compute thread. When it is moved to another stage it drops all it holds and
// begins another life there, as a worker that joins. A coordinator that is gone is looked for until it is back.
struct WorkerOptions {
  InviteSource invite;
  record::WorkerHome home;
  std::string checkpoints;             // folder; empty: in its home
  std::string name;                    // for people; empty: of its home's folder
  std::optional<std::uint32_t> stage;  // where it would rather serve
  // "section.key=value": what this machine has otherwise than the run file of the coordinator says.
  std::vector<std::string> overrides;
  std::string host;       // host file, likewise; empty: none
  std::string listen;     // address that other workers dial; empty: the one on the way to the coordinator
  double patience_s = 0;  // ends after so long without a coordinator; 0: never
  bool trace = false;
  std::string device = "auto";  // auto: CUDA if this machine has it and nothing else says what computes; cpu; cuda
  bool map_ports = true;        // asks a home router to let others in
};

// Returns the process's exit code.
int serve_worker(WorkerOptions options);

}  // namespace isthmus::app
