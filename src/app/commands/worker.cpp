#include "app/commands/command_line.h"
#include "app/commands/listen_option.h"
#include "app/commands/number_option.h"
#include "app/worker_process.h"

namespace isthmus::app {

void add_worker(CommandLine& line) {
  WorkerOptions& options = line.keep<WorkerOptions>();
  auto* command = line.app().add_subcommand("worker", "Take part in a run: enrol, wait for a seat, serve it");
  command->group("Processes of a run");
  command->add_option("--join", options.join, "Join file of the run, OUT/join; it may still have to be written")
      ->required();
  command->add_option("--home", options.home.path, "Folder of this worker: its identity, journal, checkpoints")
      ->required();
  command->add_option("--checkpoints", options.checkpoints, "Folder for checkpoints (default: in its home)");
  command->add_option("--name", options.name, "What people call it, at most 64 bytes (default: its home's folder)");
  add_number(*command, "--stage", options.stage, "Stage it would rather serve, from 0 (default: any)", 0, 100'000);
  command->add_option("--host", options.host,
                      "Host file: this machine's own keys (configs/host.schema.json); it may still have to be written");
  command
      ->add_option("--set", options.overrides,
                   "section.key=value: what this machine has otherwise than the run file says, its device or the paths "
                   "of its data; may be repeated")
      ->allow_extra_args(false);
  add_listen(*command, options.listen,
             "Address at which other workers reach it (default: the one from which it reaches the coordinator)");
  add_number(*command, "--patience", options.patience_s,
             "End after so many seconds without a coordinator; 0: look for it for ever", 0, 1e9);
  command->add_flag("--trace", options.trace, "Record spans");
  add_example(*command, "isthmus worker --join runs/hand/join --home worker-a");
  command->callback([&] { line.chosen = [&] { return serve_worker(options); }; });
}

}  // namespace isthmus::app
