#include "app/train.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "app/child.h"
#include "app/clock.h"
#include "app/owner_key.h"
#include "app/roster_file.h"
#include "app/run_folder.h"
#include "app/signals.h"
#include "app/trace.h"
#include "model/arithmetic.h"
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

// The processes of a run. One that a signal kills is started again, if the run file allows it; one that ends by itself
// knows why, and starting it again would not help.
class Launcher {
 public:
  Launcher(const RunFolder& folder, const RunConfig& run, const TrainOptions& options)
      : folder_(folder), replace_(run.recovery.replace), options_(options) {}

  int launch(const RunStart& start, const std::vector<Seat>& seats) {
    version_ = start.version;
    if (auto started = start_all(seats); !started) {
      spdlog::error("{}", started.error().message);
      return 1;
    }
    watch();
    if (options_.trace)
      if (auto joined = join_traces(folder_, static_cast<std::uint32_t>(workers_.size())); !joined)
        spdlog::error("{}", joined.error().message);
    return coordinator_.child->exit_code();
  }

 private:
  struct Process {
    std::optional<Child> child;
    Time started{};
    int quick_deaths = 0;  // in a row
    Time start_again = kNever;
    bool given_up = false;
  };

  Status start_coordinator(bool again) {
    std::vector<std::string> arguments = {"coordinator", folder_.run_file(), "--out", folder_.path, "--from-version",
                                          std::to_string(version_), "--ready-fd", "3", "--control-fd", "0"};
    const std::uint32_t port = again ? port_of(endpoints_.substr(0, endpoints_.find(' '))) : options_.port;
    arguments.insert(arguments.end(), {"--port", std::to_string(port)});
    if (again)
      arguments.insert(arguments.end(), {"--continue", "--bulk-port", std::to_string(port_of(endpoints_))});
    auto child = Child::start("coordinator", arguments, true);
    if (!child) return tl::unexpected(child.error());
    coordinator_.child.reset();
    coordinator_.child.emplace(std::move(*child));
    coordinator_.started = monotonic_now();
    return {};
  }

  // The number after the last colon.
  static std::uint32_t port_of(const std::string& endpoint) {
    return static_cast<std::uint32_t>(std::strtoul(endpoint.c_str() + endpoint.rfind(':') + 1, nullptr, 10));
  }

  Status start_worker(std::size_t index, bool again) {
    const std::string peer = std::to_string(index + 1);
    std::vector<std::string> arguments = {"worker", folder_.run_file(), "--out", folder_.path, "--peer", peer,
                                          "--from-version", std::to_string(version_)};
    if (again) arguments.push_back("--newest");
    if (options_.trace) arguments.push_back("--trace");
    auto child = Child::start("worker " + peer, arguments, false);
    if (!child) return tl::unexpected(child.error());
    Process& worker = workers_[index];
    worker.child.reset();
    worker.child.emplace(std::move(*child));
    worker.started = monotonic_now();
    worker.start_again = kNever;
    if (!endpoints_.empty()) worker.child->say(endpoints_);
    return {};
  }

  Status start_all(const std::vector<Seat>& seats) {
    if (auto started = start_coordinator(false); !started) return started;
    // Workers are started before the coordinator is ready: making the model takes longer than opening a port.
    workers_.resize(seats.size());
    for (std::size_t i = 0; i < seats.size(); ++i) {
      if (auto started = start_worker(i, false); !started) return started;
    }
    const auto endpoints = coordinator_.child->read_line();
    if (!endpoints) return fail("the coordinator did not start");
    endpoints_ = *endpoints;
    for (auto& worker : workers_) worker.child->say(endpoints_);
    return {};
  }

  void watch() {
    std::optional<Time> leave_by;
    int signals_seen = 0;
    while (true) {
      if (signal_count() > signals_seen) {
        signals_seen = signal_count();
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
        if (auto again = start_coordinator(true); again && coordinator_.child->read_line()) over = false;
        for (std::size_t i = 0; i < workers_.size() && !over; ++i)
          if (workers_[i].given_up) tell_gone(i);
      }
      bool all_ended = over;
      for (std::size_t i = 0; i < workers_.size(); ++i) {
        const bool ended = workers_[i].child->ended();
        all_ended = all_ended && ended;
        if (ended && !over) look_after(i);
      }
      if (all_ended) return;
      if (over) {
        if (!leave_by) {
          leave_by = monotonic_now() + kLeave;
          if (coordinator_.child->exit_code() != 0)
            for (auto& worker : workers_) worker.child->signal(SIGTERM);
        } else if (monotonic_now() > *leave_by) {
          for (auto& worker : workers_) worker.child->signal(SIGKILL);
        }
      }
      // Ended by any signal, a child's end (SIGCHLD) included.
      ::usleep(20'000);
    }
  }

  // Whether the process was killed, and is worth another try: not if it dies again and again as soon as it starts.
  bool may_replace(Process& process) const {
    if (!replace_ || process.child->exit_code() < 128) return false;
    process.quick_deaths = monotonic_now() - process.started < kQuick ? process.quick_deaths + 1 : 0;
    return process.quick_deaths <= kQuickDeathsMax;
  }

  void look_after(std::size_t index) {
    Process& worker = workers_[index];
    if (worker.child->exit_code() == 0 || worker.given_up || stopping_) return;
    if (worker.start_again != kNever) {
      if (monotonic_now() < worker.start_again) return;
      if (auto again = start_worker(index, true); !again) spdlog::error("{}", again.error().message);
      return;
    }
    coordinator_.child->say(fmt::format("lost {}", index + 1));
    if (may_replace(worker)) {
      worker.start_again = monotonic_now() + worker.quick_deaths * kPause;
      return;
    }
    worker.given_up = true;
    tell_gone(index);
  }

  // The coordinator decides whether the run can go on without it.
  void tell_gone(std::size_t index) {
    const Child& worker = *workers_[index].child;
    coordinator_.child->say(fmt::format("gone {} {} {}", index + 1, worker.name(), worker.ending()));
  }

  static constexpr Duration kQuick = seconds(10);
  static constexpr Duration kPause = std::chrono::milliseconds(500);
  static constexpr int kQuickDeathsMax = 5;

  const RunFolder folder_;
  const bool replace_;
  const TrainOptions options_;
  std::uint64_t version_ = 0;
  std::string endpoints_;  // the coordinator's
  Process coordinator_;
  std::vector<Process> workers_;
  bool stopping_ = false;
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
  const auto start = options.restore.from.path.empty() ? open_run_folder(folder, run, options.resume) : restore(folder, run, options.restore);
  if (!start) {
    spdlog::error("{}", start.error().message);
    return 1;
  }
  if (auto written = make_owner_key(folder).and_then([&] { return write_keys(folder, run); }); !written) {
    spdlog::error("{}", written.error().message);
    return 1;
  }
  if (const std::string note = arithmetic_note(run); !note.empty()) spdlog::info("{}", note);
  return Launcher(folder, run, options).launch(*start, seats_of(run));
}

}  // namespace isthmus
