#include <optional>
#include <string>

#include "app/commands/command_line.h"
#include "app/commands/invite_option.h"
#include "app/commands/listen_option.h"
#include "app/commands/number_option.h"
#include "app/commands/worker_home.h"
#include "app/worker_process.h"

namespace isthmus::app {

namespace {

struct JoinOptions {
  std::string invite;
  WorkerOptions worker;
  std::optional<double> up_mbps, down_mbps;
};

int join(JoinOptions& options) {
  if (auto found = find_home(options.worker.home); !found) return report(found);
  auto source = invite_source(options.invite, options.worker.home);
  if (!source) return report(tl::unexpected(source.error()));
  options.worker.invite = std::move(*source);
  if (options.worker.device != "auto") options.worker.overrides.push_back("pipeline.device=" + options.worker.device);
  if (options.up_mbps) options.worker.overrides.push_back(fmt::format("link.uplink_mbps={}", *options.up_mbps));
  if (options.down_mbps) options.worker.overrides.push_back(fmt::format("link.downlink_mbps={}", *options.down_mbps));
  return serve_worker(options.worker);
}

}  // namespace

void add_join(CommandLine& line) {
  JoinOptions& options = line.keep<JoinOptions>();
  WorkerOptions& worker = options.worker;
  auto* command = line.app().add_subcommand("join", "Take part in a run: enrol, wait for a seat, serve it");
  command->group("Processes of a run");
  command->add_option("INVITE", options.invite,
                      "What `isthmus invite` printed, - to read it from standard input, or a file that holds it, "
                      "OUT/join, which may still have to be written (default: that of the run it joined last)");
  add_home(*command, worker.home, "Folder of this worker: its identity, journal, checkpoints");
  command->add_option("--checkpoints", worker.checkpoints, "Folder for checkpoints (default: in its home)");
  command->add_option("--name", worker.name, "What people call it, at most 64 bytes (default: its home's folder)");
  add_number(*command, "--stage", worker.stage, "Stage it would rather serve, from 0 (default: any)", 0, 100'000);
  command->add_option("--host", worker.host,
                      "Host file: this machine's own keys (configs/host.schema.json); it may still have to be written");
  command
      ->add_option("--set", worker.overrides,
                   "section.key=value: what this machine has otherwise than the run file says, its device or the paths "
                   "of its data; may be repeated")
      ->allow_extra_args(false);
  command
      ->add_option("--device", worker.device,
                   "What computes: cpu, cuda, or auto: what the host file says, otherwise CUDA if this machine has it "
                   "and the replicas of a stage need not agree to the bit")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  add_number(*command, "--up", options.up_mbps, "Uplink of this machine, in Mb/s (default: what the run assumes)", 0,
             1e6);
  add_number(*command, "--down", options.down_mbps,
             "Most that it fetches of its siblings' state to join a stage, in Mb/s (default: as fast as it comes)", 0,
             1e6);
  add_listen(*command, worker.listen,
             "Address at which other workers reach it (default: the one from which it reaches the coordinator)");
  add_number(*command, "--patience", worker.patience_s,
             "End after so many seconds without a coordinator; 0: look for it for ever", 0, 1e9);
  command->add_flag("!--no-port-mapping", worker.map_ports,
                    "Do not ask the home router to let other workers in (NAT-PMP, UPnP)");
  command->add_flag("--trace", worker.trace, "Record spans");
  add_example(*command, "isthmus join runs/hand/join --home worker-a");
  command->callback([&] { line.chosen = [&] { return join(options); }; });
}

}  // namespace isthmus::app
