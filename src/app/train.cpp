#include "app/train.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "app/child.h"
#include "app/clock.h"
#include "app/roster_file.h"
#include "app/run_folder.h"
#include "app/signals.h"
#include "app/trace.h"
#include "model/token_source.h"
#include "wire/keys.h"

namespace isthmus {

namespace {

// After the coordinator has ended the workers have nothing to wait for.
constexpr Duration kLeave = seconds(5);

// New keys for every start: who knows an old one cannot come back with it.
Status write_keys(const RunFolder& folder, const RunConfig& run) {
  RosterFile roster;
  roster.seats = seats_of(run);
  for (std::uint32_t peer = 0; peer <= roster.seats.size(); ++peer) {
    const KeyPair keys = new_key_pair();
    (peer == 0 ? roster.coordinator : roster.seats[peer - 1].key) = keys.public_key;
    std::error_code ignored;
    std::filesystem::remove(folder.key_file(peer), ignored);
    if (auto written = write_key_file(folder.key_file(peer), keys); !written) return written;
  }
  return write_roster(folder.roster(), roster);
}

class Launcher {
 public:
  Launcher(const RunFolder& folder, const TrainOptions& options) : folder_(folder), options_(options) {}

  int launch(const RunStart& start, std::size_t workers) {
    if (auto started = start_all(start, workers); !started) {
      spdlog::error("{}", started.error().message);
      return 1;
    }
    watch();
    if (options_.trace)
      if (auto joined = join_traces(folder_, static_cast<std::uint32_t>(workers)); !joined)
        spdlog::error("{}", joined.error().message);
    return coordinator_->exit_code();
  }

 private:
  Status start_all(const RunStart& start, std::size_t workers) {
    const std::string version = std::to_string(start.version);
    auto coordinator = Child::start(
        "coordinator",
        {"coordinator", folder_.run_file(), "--out", folder_.path, "--from-version", version, "--port",
         std::to_string(options_.port), "--ready-fd", "3", "--control-fd", "0"},
        true);
    if (!coordinator) return tl::unexpected(coordinator.error());
    coordinator_.emplace(std::move(*coordinator));
    // Workers are started before the coordinator is ready: making the model takes longer than opening a port.
    for (std::size_t peer = 1; peer <= workers; ++peer) {
      std::vector<std::string> arguments = {"worker", folder_.run_file(), "--out", folder_.path,
                                            "--peer", std::to_string(peer), "--from-version", version};
      if (options_.trace) arguments.push_back("--trace");
      auto worker = Child::start(fmt::format("worker {}", peer), arguments, false);
      if (!worker) return tl::unexpected(worker.error());
      workers_.push_back(std::move(*worker));
    }
    const auto endpoints = coordinator_->read_line();
    if (!endpoints) return fail("the coordinator did not start");
    for (auto& worker : workers_) worker.say(*endpoints);
    return {};
  }

  void watch() {
    std::optional<Time> leave_by;
    int signals_seen = 0;
    while (true) {
      if (signal_count() > signals_seen) {
        signals_seen = signal_count();
        if (signals_seen == 1) {
          coordinator_->say("stop 130 interrupted");
        } else {
          for (auto& worker : workers_) worker.signal(SIGKILL);
          coordinator_->signal(SIGKILL);
        }
      }
      const bool coordinator_ended = coordinator_->ended();
      bool all_ended = coordinator_ended;
      for (auto& worker : workers_) {
        const bool ended = worker.ended();
        all_ended = all_ended && ended;
        if (ended && !coordinator_ended && !told_ && worker.exit_code() != 0) {
          told_ = true;
          coordinator_->say(fmt::format("stop 1 {} {}; its stage has no other replica. Continue with --resume",
                                        worker.name(), worker.ending()));
        }
      }
      if (all_ended) return;
      if (coordinator_ended) {
        if (!leave_by) {
          leave_by = monotonic_now() + kLeave;
          if (coordinator_->exit_code() != 0)
            for (auto& worker : workers_) worker.signal(SIGTERM);
        } else if (monotonic_now() > *leave_by) {
          for (auto& worker : workers_) worker.signal(SIGKILL);
        }
      }
      // Ended by any signal, a child's end (SIGCHLD) included.
      ::usleep(20'000);
    }
  }

  const RunFolder folder_;
  const TrainOptions options_;
  std::optional<Child> coordinator_;
  std::vector<Child> workers_;
  bool told_ = false;
};

}  // namespace

int train(const RunConfig& run, const TrainOptions& options) {
  catch_signals();
  signal(SIGCHLD, [](int) {});
  const RunFolder folder{options.out};
  if (run.pipeline.device != "emulated") {
    // Before anything is started or written: a missing or broken shard should cost nothing.
    if (auto source = TokenSource::open(run); !source) {
      spdlog::error("{}", source.error().message);
      return 1;
    }
  }
  const auto start = open_run_folder(folder, run, options.resume);
  if (!start) {
    spdlog::error("{}", start.error().message);
    return 1;
  }
  if (auto written = write_keys(folder, run); !written) {
    spdlog::error("{}", written.error().message);
    return 1;
  }
  const int code = Launcher(folder, options).launch(*start, seats_of(run).size());
  return code;
}

}  // namespace isthmus
