#include "app/coordinator_process.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <optional>
#include <utility>

#include "app/clock.h"
#include "app/decision_log.h"
#include "app/fleet_file.h"
#include "app/line_reader.h"
#include "app/process_link.h"
#include "app/progress.h"
#include "app/roster_file.h"
#include "app/run_record.h"
#include "app/signals.h"
#include "scheduler/coordinator.h"
#include "scheduler/make_plan.h"

namespace isthmus {

namespace {

std::uint64_t wall_clock_us() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

class CoordinatorProcess {
 public:
  CoordinatorProcess(const RunConfig& run, const CoordinatorOptions& options)
      : options_(options), run_(run), plan_(make_plan(run)), control_(options.control_fd),
        progress_(run, stdout), fleet_(options.folder.fleet(), run) {}

  int serve() {
    if (auto ready = open(); !ready) {
      spdlog::error("{}", ready.error().message);
      return 1;
    }
    if (options_.fresh) carry_out(coordinator_->begin(options_.version, monotonic_now()));
    while (!exit_code_) turn();
    // A worker leaves when it reads that the run has ended.
    link_->wait_until_left(monotonic_now() + seconds(2));
    return *exit_code_;
  }

 private:
  Status open() {
    auto roster = read_roster(options_.folder.roster());
    if (!roster) return tl::unexpected(roster.error());
    auto keys = read_key_file(options_.folder.key_file(0));
    if (!keys) return tl::unexpected(keys.error());
    ProcessLink::Options link;
    link.self = kCoordinator;
    link.keys = *keys;
    for (const auto& seat : roster->seats) link.roster.add(seat.peer, seat.key);
    link.host = options_.host;
    link.port = options_.port;
    link.bulk_port = options_.bulk_port;
    auto opened = ProcessLink::open(run_, plan_, std::move(link));
    if (!opened) return tl::unexpected(opened.error());
    link_ = std::move(*opened);

    // Only now: a port in use must leave nothing behind that looks like a run.
    auto log = DecisionLog::open(options_.folder.decision_log());
    if (!log) return tl::unexpected(log.error());
    auto record = RunRecord::open(options_.folder, run_, plan_, options_.version, monotonic_now());
    if (!record) return tl::unexpected(record.error());

    Coordinator::Options limits;
    limits.clip = run_.train.clip;
    limits.guard = StepGuard::Options::of(run_);
    limits.checkpoints_kept = run_.checkpoint.keep;
    if (run_.recovery.rebalance) {
      limits.rebalance.emplace();
      limits.rebalance->bits_per_second = run_.link.bandwidth_mbps * 1e6;
    }
    limits.measure = seconds(run_.link.measure_s);
    coordinator_.emplace(plan_, roster->seats, limits);
    coordinator_->replay(log->records());
    if (!options_.fresh)
      if (auto repaired = record->take_up(log->records()); !repaired) return repaired;
    log_.emplace(std::move(*log));
    record_.emplace(std::move(*record));
    if (options_.ready_fd >= 0) {
      const auto endpoints = link_->endpoints();
      const std::string line = endpoints.control + " " + endpoints.bulk + "\n";
      if (::write(options_.ready_fd, line.data(), line.size()) < 0)
        return fail("nobody waits for this coordinator's endpoints any more");
      ::close(options_.ready_fd);
    }
    return {};
  }

  void turn() {
    auto turn = link_->turn(coordinator_->next_due(), control_.fd());
    const Time now = monotonic_now();
    if (const auto rejected = link_->messenger().rejected(); rejected != rejected_) {
      rejected_ = rejected;
      carry_out({Happened{"refused", coordinator_->decisions().step, kCoordinator, "frame from " + link_->messenger().last_rejection()}});
    }
    for (const PeerId peer : turn.connected) carry_out(coordinator_->connected(peer, now));
    for (const auto& arrival : turn.messages)
      if (const auto* report = std::get_if<Report>(&arrival.message))
        carry_out(coordinator_->received(arrival.from, *report, now));
    for (const PeerId peer : turn.disconnected) carry_out(coordinator_->disconnected(peer, now));
    while (const auto line = control_.next()) do_as_told(*line, now);
    if (const int signal = received_signal(); signal != 0 && !stop_code_) {
      stop_code_ = 130;
      carry_out(coordinator_->stop("interrupted", now));
    }
    if (now >= coordinator_->next_due()) carry_out(coordinator_->tick(now));
    progress_.refresh(record_->figures(), *coordinator_, now);
    refresh_fleet(now, false);
  }

  // The run does not depend on it, so that a full disk does not end it.
  void refresh_fleet(Time now, bool at_once) {
    const Status written = fleet_.refresh(*coordinator_, now, at_once);
    if (!written && !std::exchange(told_of_fleet_, true)) progress_.say(written.error().message);
  }

  void do_as_told(const std::string& line, Time now) {
    int code = 0, at = 0;
    unsigned peer = 0;
    if (std::sscanf(line.c_str(), "lost %u", &peer) == 1) {
      carry_out(coordinator_->process_ended(PeerId(peer), now));
      return;
    }
    if (std::sscanf(line.c_str(), "gone %u %n", &peer, &at) == 1) {
      carry_out(coordinator_->process_gone(PeerId(peer), line.substr(static_cast<std::size_t>(at)), now));
      return;
    }
    if (std::sscanf(line.c_str(), "stop %d %n", &code, &at) != 1) return;
    if (!stop_code_) stop_code_ = code;
    carry_out(coordinator_->stop(line.substr(static_cast<std::size_t>(at)), now));
  }

  void carry_out(std::vector<CoordinatorEffect> effects) {
    for (auto& effect : effects) {
      if (broken_) return;
      Status done = std::visit([&](const auto& e) { return carry_out(e); }, effect);
      if (!done) {
        // Nothing that follows from an unwritten decision may be sent.
        spdlog::error("{}", done.error().message);
        broken_ = true;
        exit_code_ = 1;
      }
    }
  }

  Status carry_out(const AppendRecord& effect) { return log_->append(effect.record); }
  Status carry_out(const SendView& effect) {
    link_->send(effect.peer, effect.view);
    return {};
  }
  Status carry_out(const StepCommitted& effect) {
    const auto before = record_->figures().step;
    const Status written = record_->committed(effect.outcome, monotonic_now());
    if (record_->figures().step != before) progress_.committed(record_->figures());
    return written;
  }
  Status carry_out(const Happened& effect) {
    for (const char* told : {"fault", "warning", "refused", "expelled", "joining", "moved", "gone", "rolled back"})
      if (effect.event == told) progress_.say(fmt::format("{}: {}: {}", effect.peer == kCoordinator ? "coordinator" : fmt::format("worker {}", effect.peer), effect.event, effect.reason));
    // Members of the first moments are no news.
    if (effect.event == "admitted" && effect.step > StepId(options_.version + 1))
      progress_.say(fmt::format("worker {}: admitted: {}", effect.peer, effect.reason));
    if (effect.event == "rolled back")
      if (auto cut = record_->rolled_back(coordinator_->decisions().step.value - 1); !cut) return cut;
    return record_->happened(effect, wall_clock_us());
  }
  Status carry_out(const RunEnded& effect) {
    const Status written = record_->ended(effect, monotonic_now());
    refresh_fleet(monotonic_now(), true);
    exit_code_ = effect.finished ? 0 : stop_code_.value_or(1);
    const auto& f = record_->figures();
    if (effect.finished) {
      std::string line = fmt::format("finished: {} steps, loss {:.4f}", f.step, f.loss);
      if (f.validation_loss) line += fmt::format(", validation loss {:.4f}", *f.validation_loss);
      progress_.say(line);
    } else {
      progress_.say(fmt::format("stopped after step {}: {}", effect.version, effect.reason));
    }
    return written;
  }

  const CoordinatorOptions options_;
  const RunConfig run_;
  const Plan plan_;
  LineReader control_;
  Progress progress_;
  FleetFile fleet_;
  bool told_of_fleet_ = false;
  std::unique_ptr<ProcessLink> link_;
  std::optional<Coordinator> coordinator_;
  std::optional<DecisionLog> log_;
  std::optional<RunRecord> record_;
  std::uint64_t rejected_ = 0;
  bool broken_ = false;
  std::optional<int> stop_code_;
  std::optional<int> exit_code_;
};

}  // namespace

int serve_coordinator(const RunConfig& run, const CoordinatorOptions& options) {
  catch_signals();
  return CoordinatorProcess(run, options).serve();
}

}  // namespace isthmus
