#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "app/commands/command_line.h"
#include "app/commands/number_option.h"
#include "app/owner_key.h"
#include "app/restore.h"
#include "base/digest.h"
#include "base/identity.h"
#include "data/token_source.h"
#include "process/child.h"
#include "process/clock.h"
#include "process/open_files.h"
#include "process/signals.h"
#include "record/run_folder.h"
#include "record/trace.h"
#include "spec/boundary_form.h"
#include "spec/run_config.h"
#include "stage/arithmetic_note.h"
#include "stage/torch_module.h"

namespace isthmus::app {

namespace {

// `isthmus train`: a whole run on this machine, one coordinator process and one worker process per stage replica.
struct TrainOptions {
  std::string out;  // folder the run leaves behind
  bool resume = false;
  bool force = false;
  RestoreOptions restore;  // if it has a path: the run to go on from
  bool trace = false;
  std::uint16_t port = 0;  // of the coordinator; 0: any
};

// After the coordinator has ended the workers have nothing to wait for.
constexpr Duration kLeave = seconds(5);

// The processes of a run. One that a signal kills is started again, if the run file allows it; one that ends by itself
// knows why, and starting it again would not help.
class Launcher {
 public:
  Launcher(const record::RunFolder& folder, const spec::RunConfig& run, const TrainOptions& options)
      : folder_(folder), replace_(run.host.replace), options_(options) {
    for (std::uint32_t stage = 0; stage < run.pipeline.stage.size(); ++stage)
      for (std::uint32_t replica = 0; replica < run.pipeline.stage[stage].replicas; ++replica) {
        Process& worker = workers_.emplace_back();
        worker.name = fmt::format("worker-{}", workers_.size());
        worker.stage = stage;
      }
  }

  int launch(const record::RunStart& start) {
    if (auto started = start_all(start.version); !started) {
      spdlog::error("{}", started.error().message);
      return 1;
    }
    watch();
    if (options_.trace)
      if (auto joined = record::join_traces(folder_, static_cast<std::uint32_t>(workers_.size())); !joined)
        spdlog::error("{}", joined.error().message);
    return coordinator_.child->exit_code();
  }

 private:
  struct Process {
    std::string name;
    std::uint32_t stage = 0;  // where a worker would rather serve
    std::optional<process::Child> child;
    Time started{};
    int quick_deaths = 0;  // in a row
    Time start_again = kNever;
    bool given_up = false;
  };

  // Without this process it ends the run in order. With `begin_at` the run begins, otherwise it goes on from its log.
  Status start_coordinator(std::optional<std::uint64_t> begin_at) {
    std::vector<std::string> arguments = {"coordinator",  folder_.run_file(),
                                          "--out",        folder_.path,
                                          "--control-fd", "0",
                                          "--port",       std::to_string(options_.port),
                                          "--expect",     std::to_string(workers_.size())};
    if (begin_at) arguments.insert(arguments.end(), {"--begin-at", std::to_string(*begin_at)});
    auto child = process::Child::start("coordinator", arguments, {.when_orphaned = SIGTERM});
    if (!child) return tl::unexpected(child.error());
    coordinator_.child.reset();
    coordinator_.child.emplace(std::move(*child));
    coordinator_.started = process::monotonic_now();
    return {};
  }

  // Nothing of who it is comes from here: it makes its identity itself, in its own folder, and enrols as a stranger
  // does. Without this process it does what the coordinator says, and ends when that is gone as well.
  Status start_worker(Process& worker) {
    std::vector<std::string> arguments = {"join",          folder_.join_file(),
                                          "--home",        folder_.path + "/" + worker.name,
                                          "--host",        folder_.host_file(),
                                          "--checkpoints", folder_.checkpoints(),
                                          "--name",        worker.name,
                                          "--stage",       std::to_string(worker.stage),
                                          "--patience",    std::to_string(kPatience)};
    if (options_.trace) arguments.push_back("--trace");
    auto child = process::Child::start(worker.name, arguments, {.when_orphaned = 0});
    if (!child) return tl::unexpected(child.error());
    worker.child.reset();
    worker.child.emplace(std::move(*child));
    worker.started = process::monotonic_now();
    worker.start_again = kNever;
    return {};
  }

  // All at once: making the model takes longer than opening a port.
  Status start_all(std::uint64_t version) {
    if (auto started = start_coordinator(version); !started) return started;
    for (auto& worker : workers_)
      if (auto started = start_worker(worker); !started) return started;
    return {};
  }

  void watch() {
    std::optional<Time> leave_by;
    int signals_seen = 0;
    while (true) {
      if (process::signal_count() > signals_seen) {
        signals_seen = process::signal_count();
        stopping_ = true;
        if (signals_seen == 1) {
          coordinator_.child->say("stop 130 interrupted");
        } else {
          for (auto& worker : workers_) worker.child->signal(SIGKILL);
          coordinator_.child->signal(SIGKILL);
        }
      }
      bool over = coordinator_.child->ended();
      if (over && !stopping_ && may_replace(coordinator_)) {
        spdlog::warn("the coordinator {}; it goes on from its log", coordinator_.child->ending());
        if (auto again = start_coordinator(std::nullopt); again)
          over = false;
        else
          spdlog::error("{}", again.error().message);
        for (const auto& worker : workers_)
          if (worker.given_up && !over) tell_gone(worker);
      }
      bool all_ended = over;
      for (auto& worker : workers_) {
        const bool ended = worker.child->ended();
        all_ended = all_ended && ended;
        if (ended && !over) look_after(worker);
      }
      if (all_ended) return;
      if (over) {
        if (!leave_by) {
          leave_by = process::monotonic_now() + kLeave;
          if (coordinator_.child->exit_code() != 0)
            for (auto& worker : workers_) end_at_once(worker);
        } else if (process::monotonic_now() > *leave_by) {
          for (auto& worker : workers_) worker.child->signal(SIGKILL);
        }
      }
      // Ended by any signal, a child's end (SIGCHLD) included.
      ::usleep(20'000);
    }
  }

  // A worker that is asked twice says good-bye to nobody. Signals of one kind that are not read yet are one.
  static void end_at_once(Process& worker) {
    for (const int signal : {SIGTERM, SIGINT}) worker.child->signal(signal);
  }

  // Whether the process was killed, and is worth another try: not if it dies again and again as soon as it starts.
  bool may_replace(Process& process) const {
    if (!replace_ || process.child->exit_code() < 128) return false;
    process.quick_deaths = process::monotonic_now() - process.started < kQuick ? process.quick_deaths + 1 : 0;
    return process.quick_deaths <= kQuickDeathsMax;
  }

  void look_after(Process& worker) {
    if (worker.child->exit_code() == 0 || worker.given_up || stopping_) return;
    if (worker.start_again != kNever) {
      if (process::monotonic_now() < worker.start_again) return;
      if (auto again = start_worker(worker); !again) spdlog::error("{}", again.error().message);
      return;
    }
    hint("lost", worker);
    if (may_replace(worker)) {
      worker.start_again = process::monotonic_now() + worker.quick_deaths * kPause;
      return;
    }
    worker.given_up = true;
    tell_gone(worker);
  }

  // The coordinator decides whether the run can go on without it.
  void tell_gone(const Process& worker) { hint("gone", worker, worker.name + " " + worker.child->ending()); }

  // By its key: anybody may have the same name. One that has no key yet never enrolled.
  void hint(const char* what, const Process& worker, const std::string& why = "") {
    const auto identity = Identity::read(record::WorkerHome{folder_.path + "/" + worker.name}.identity());
    if (identity) coordinator_.child->say(fmt::format("{} {} {}", what, to_hex(identity->key()), why));
  }

  static constexpr Duration kQuick = seconds(10);
  static constexpr Duration kPause = std::chrono::milliseconds(500);
  static constexpr int kQuickDeathsMax = 5;
  static constexpr int kPatience = 60;  // seconds

  const record::RunFolder folder_;
  const bool replace_;
  const TrainOptions options_;
  Process coordinator_;
  std::vector<Process> workers_;
  bool stopping_ = false;
};

record::Begin begin_of(const TrainOptions& options) {
  if (options.resume) return record::Begin::kResumed;
  return options.force ? record::Begin::kCleared : record::Begin::kFresh;
}

int train(spec::RunConfig run, const TrainOptions& options) {
  process::catch_signals();
  signal(SIGCHLD, [](int) {});
  const record::RunFolder folder{options.out};
  if (!run.emulated.devices) {
    // Before anything is started or written: what is missing or broken should cost nothing.
    if (auto source = data::TokenSource::open(run); !source) {
      spdlog::error("{}", source.error().message);
      return 1;
    }
    if (auto there = stage::torch_module_path(); !there) {
      spdlog::error("{}", there.error().message);
      return 1;
    }
  }
  std::uint64_t workers = 0;
  for (const auto& stage : run.pipeline.stage) workers += stage.replicas;
  if (auto enough = process::allow_open_files(process::open_files_of(workers)); !enough) {
    spdlog::error("{}", enough.error().message);
    return 1;
  }
  if (auto named = name_shards(run); !named) return report(named);
  const auto start = options.restore.from.path.empty() ? record::open_run_folder(folder, run, begin_of(options))
                                                       : restore(folder, run, begin_of(options), options.restore);
  if (!start) {
    spdlog::error("{}", start.error().message);
    return 1;
  }
  for (const auto& change : start->changes) spdlog::info("{}", change);
  if (auto written = make_owner_key(folder); !written) {
    spdlog::error("{}", written.error().message);
    return 1;
  }
  if (const std::string note = stage::arithmetic_note(run); !note.empty()) spdlog::info("{}", note);
  if (const std::string note = spec::map_note(run.boundary.codec); !note.empty()) spdlog::warn("{}", note);
  return Launcher(folder, run, options).launch(*start);
}

}  // namespace

void add_train(CommandLine& line) {
  RunArguments& run = line.keep<RunArguments>();
  TrainOptions& train_options = line.keep<TrainOptions>();
  auto* train_command = line.app().add_subcommand(
      "train", "Run a whole training on this machine: one coordinator, one process per stage replica");
  run.add_to(*train_command);
  run.add_host_to(*train_command);
  train_command->add_option("--out", train_options.out, "Folder the run leaves behind (default: runs/NAME)");
  auto* resume =
      train_command->add_flag("--resume", train_options.resume, "Continue from the newest checkpoint in --out");
  train_command->add_flag("--force", train_options.force, "Clear --out of the run it holds, or of what is left of one")
      ->excludes(resume);
  OwnedRunOptions& from = train_options.restore.from;
  auto* from_option =
      train_command
          ->add_option("--from", from.path,
                       "Folder of a run to go on from, on another layer-to-stage map or with other replicas")
          ->excludes(resume);
  add_number(*train_command, "--step", from.step, "Checkpoint of --from to take (default: the newest)", 0, kSeedMax)
      ->needs(from_option);
  train_command
      ->add_option("--owner-key", from.owner_key, "Key file of the owner of --from (default: the one in its folder)")
      ->needs(from_option);
  train_command
      ->add_flag("--allow-model-change", train_options.restore.allow_model_change,
                 "Also where the new map has no place for a part of the model, or needs one that it has not")
      ->needs(from_option);
  train_command->add_flag("--trace", train_options.trace, "Write trace.json (Perfetto, chrome://tracing)");
  add_port(*train_command, train_options.port);
  add_example(*train_command, "isthmus train configs/webster.toml --out runs/mine");
  train_command->callback([&] {
    line.chosen = [&] {
      const auto begin = [&](const spec::RunConfig& config) { return train(config, train_options); };
      return with_run(run, [&](const spec::RunConfig& config) {
        if (train_options.out.empty()) train_options.out = "runs/" + config.run.name;
        const record::RunFolder folder{train_options.out};
        if (!train_options.resume || !std::filesystem::exists(folder.run_file())) return begin(config);
        run.earlier = folder.run_file();
        return with_run(run, begin);
      });
    };
  });
}

}  // namespace isthmus::app
