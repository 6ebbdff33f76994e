#include "app/worker_process.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <random>
#include <set>
#include <utility>

#include "app/clock.h"
#include "app/compute_thread.h"
#include "app/line_reader.h"
#include "app/process_link.h"
#include "app/roster_file.h"
#include "app/signals.h"
#include "app/trace.h"
#include "router/worker_steps.h"
#include "scheduler/make_plan.h"
#include "stage/emulated_stage.h"
#include "stage/torch_stage.h"

namespace isthmus {

namespace {

constexpr Duration kReachCoordinator = seconds(15);

std::uint64_t fresh_seed() {
  std::random_device device;
  return (std::uint64_t{device()} << 32) | device();
}

// Twice the time in which an uplink moves a whole step's boundary traffic, at least two seconds.
Duration ask_after(const RunConfig& run, const Plan& plan) {
  const double bytes = static_cast<double>(plan.token_bytes + plan.forward_bytes + plan.backward_bytes) *
                       (plan.microbatches + plan.evaluation_microbatches);
  return seconds(std::max(2.0, 2.0 * bytes * 8e-6 / run.link.bandwidth_mbps));
}

// What a worker keeps when it moves to another stage.
struct WorkerCourse {
  std::optional<Place> moved;         // where it serves now, if not where the roster says
  std::optional<Endpoints> coordinator;
  Trace trace;
};

// One life of a worker in one place.
class WorkerLife {
 public:
  WorkerLife(const RunConfig& run, const WorkerOptions& options, LineReader& endpoints, WorkerCourse& course)
      : options_(options), run_(run), plan_(make_plan(run)), endpoints_(endpoints), course_(course) {}

  ~WorkerLife() {
    if (compute_) compute_->join();
    if (woken_ >= 0) ::close(woken_);
  }

  // The process's exit code, or nothing: it goes on at course.moved.
  std::optional<int> serve() {
    if (auto ready = open(); !ready) {
      spdlog::error("worker {}: {}", options_.peer, ready.error().message);
      return 1;
    }
    while (!exit_code_ && !moves_) turn();
    if (exit_code_) link_->flush(monotonic_now() + seconds(1));
    compute_->join();
    note_wait("");
    course_.trace.append(compute_->trace());
    if (options_.trace)
      if (auto written = course_.trace.write(options_.folder.worker_trace(options_.peer.value), options_.peer, seat_.stage); !written)
        spdlog::error("worker {}: {}", options_.peer, written.error().message);
    return exit_code_;
  }

 private:
  Status open() {
    auto roster = read_roster(options_.folder.roster());
    if (!roster) return tl::unexpected(roster.error());
    const auto seat = std::ranges::find(roster->seats, options_.peer, &Seat::peer);
    if (seat == roster->seats.end())
      return fail("{} has no seat for peer {}", options_.folder.roster(), options_.peer);
    seat_ = *seat;
    if (course_.moved) {
      seat_.stage = course_.moved->stage;
      seat_.replica = course_.moved->replica;
    }
    coordinator_key_ = roster->coordinator;
    auto keys = read_key_file(options_.folder.key_file(options_.peer.value));
    if (!keys) return tl::unexpected(keys.error());

    woken_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    const std::string checkpoints = options_.folder.checkpoints();
    const auto& stage = plan_.stages[seat_.stage.value];
    ComputeThread::Options compute;
    compute.checkpoints = {options_.folder.checkpoints(), seat_.stage, stage.first_layer, stage.end_layer, seat_.replica};
    compute.journal_folder = options_.folder.journal(options_.peer.value, seat_.stage.value);
    // A process that was started where the roster says may not know yet where it serves.
    if (course_.moved) forget_other_stages();
    compute.trace = options_.trace;
    compute.versions = {options_.version};
    if (options_.newest || course_.moved) {
      compute.versions = checkpoint_versions(options_.folder.checkpoints(), seat_.stage);
      std::ranges::reverse(compute.versions);
      compute.versions.push_back(0);
    }
    const double slowdown = run_.emulated.slow_peer == options_.peer.value ? run_.emulated.slow_factor : 1;
    compute.make = [run = run_, plan = plan_, place = compute.checkpoints, slowdown] {
      return run.pipeline.device == "emulated" ? make_emulated_stage(run, plan, place.stage, place.replica, place.folder, slowdown)
                                               : make_torch_stage(run, place.stage, place.replica, place.folder);
    };
    compute_ = std::make_unique<ComputeThread>(run_, plan_, std::move(compute), [fd = woken_] {
      const std::uint64_t one = 1;
      [[maybe_unused]] const auto n = ::write(fd, &one, sizeof one);
    });
    ProcessLink::Options link;
    link.self = options_.peer;
    link.keys = *keys;
    link.roster.add(kCoordinator, roster->coordinator);
    for (const auto& other : roster->seats) link.roster.add(other.peer, other.key);
    auto opened = ProcessLink::open(run_, plan_, std::move(link));
    if (!opened) return tl::unexpected(opened.error());
    link_ = std::move(*opened);
    return {};
  }

  void forget_other_stages() {
    namespace fs = std::filesystem;
    const fs::path mine = options_.folder.journal(options_.peer.value, seat_.stage.value);
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(options_.folder.journal(options_.peer.value), ignored))
      if (entry.path() != mine) fs::remove_all(entry.path(), ignored);
  }

  void turn() {
    const Time due = steps_ ? steps_->next_due() : monotonic_now() + std::chrono::milliseconds(200);
    auto turn = link_->turn(due, woken_);
    if (!connecting_) connect_to_coordinator();
    std::uint64_t count;
    [[maybe_unused]] const auto n = ::read(woken_, &count, sizeof count);

    const Time now = turn.now;
    watch_connection(turn, now);
    while (auto result = compute_->try_take()) take(std::move(*result), now);
    if (received_signal() == SIGTERM && !exit_code_) exit_code_ = 130;
    if (exit_code_ || moves_ || !steps_) return;

    steps_->set_stats(stats());
    for (const PeerId peer : turn.connected) carry_out(steps_->peer_connected(peer, now));
    for (auto& arrival : turn.messages) {
      note_message("receive", arrival.message, now);
      if (arrival.from != kCoordinator)
        carry_out(steps_->message_received(arrival.from, std::move(arrival.message), now));
      else if (const auto* view = std::get_if<View>(&arrival.message))
        carry_out(steps_->view_received(*view, now));
    }
    for (const PeerId peer : turn.disconnected) carry_out(steps_->peer_lost(peer, now));
    if (now >= steps_->next_due()) carry_out(steps_->tick(now));
    note_wait(steps_->waiting_for());
  }

  // Boundary tensors in the trace: when they were handed to the link, and when the last of them had arrived.
  void note_message(const char* lane, const Message& message, Time now) {
    if (!options_.trace || traffic_of(message) != Traffic::kBoundary) return;
    const auto* forward = std::get_if<Forward>(&message);
    const MicrobatchId m = forward ? forward->microbatch : std::get<Backward>(message).microbatch;
    course_.trace.span(lane, fmt::format("{} {}", forward ? "activation" : "gradient", m), now, now);
  }

  // What the device waits for, from one change of the reason to the next.
  void note_wait(const std::string& reason) {
    if (!options_.trace || reason == waits_for_) return;
    const Time now = monotonic_now();
    if (!waits_for_.empty()) course_.trace.span("wait", waits_for_, waits_since_, now);
    waits_for_ = reason;
    waits_since_ = now;
  }

  void connect_to_coordinator() {
    if (!course_.coordinator) {
      const auto line = endpoints_.next();
      if (!line) {
        if (endpoints_.closed()) {
          spdlog::error("worker {}: the coordinator did not start", options_.peer);
          exit_code_ = 1;
        }
        return;
      }
      const auto space = line->find(' ');
      if (space == std::string::npos) return;
      course_.coordinator = Endpoints{line->substr(0, space), line->substr(space + 1)};
    }
    link_->connect(kCoordinator, *course_.coordinator, coordinator_key_);
    connecting_ = true;
    give_up_ = monotonic_now() + kReachCoordinator;
  }

  // Says why nothing happens, once, instead of trying in silence for ever.
  void watch_connection(const ProcessLink::Turn& turn, Time now) {
    if (std::ranges::find(turn.connected, kCoordinator) != turn.connected.end()) give_up_ = kNever;
    if (now < give_up_) return;
    spdlog::error("worker {}: the coordinator does not let this worker in: nobody answers at its address, or the key in {} is "
                  "not the one in its roster", options_.peer, options_.folder.key_file(options_.peer.value));
    exit_code_ = 1;
  }

  void take(ComputeResult result, Time now) {
    if (result.time) time_ = *result.time;
    if (!result.error.empty()) {
      // The stage cannot be made, or not go on: everybody has to know why.
      spdlog::error("worker {} (stage {}): {}", options_.peer, seat_.stage, result.error);
      exit_code_ = 1;
      return;
    }
    std::visit(
        [&](auto&& value) {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, StageReady>)
            begin(value, now);
          else
            carry_out(steps_->job_done(std::move(value), now));
        },
        std::move(result.value));
  }

  void begin(const StageReady& ready, Time now) {
    WorkerIdentity identity{options_.peer, seat_.stage, seat_.replica, link_->endpoints(), ask_after(run_, plan_),
                            run_.link.bandwidth_mbps * 1e6 / 8, ready.device};
    steps_.emplace(plan_, identity, WorkerSteps::Origin{ready.version, ready.timeline}, fresh_seed());
    carry_out(steps_->peer_connected(kCoordinator, now));
  }

  void carry_out(std::vector<WorkerEffect> effects) {
    for (auto& effect : effects) std::visit([&](auto& e) { carry_out(e); }, effect);
  }
  void carry_out(SendMessage& effect) {
    note_message("send", effect.message, monotonic_now());
    link_->send(effect.peer, effect.message);
  }
  void carry_out(KnowMembers& effect) {
    for (const auto& member : effect.members) {
      if (member.peer == options_.peer) continue;
      link_->allow(member.peer, member.key);
      // Of two stages that exchange tensors the later one connects, of two siblings the later worker; the other answers on the
      // same connection.
      const bool sibling = member.stage == seat_.stage && member.peer < options_.peer;
      const bool before = member.stage < seat_.stage && seat_.stage.value - member.stage.value <= plan_.reach();
      if ((sibling || before) && known_.insert(member.session).second)
        link_->connect(member.peer, member.endpoints, member.key);
    }
  }
  void carry_out(ConnectTo& effect) {
    if (known_.insert(effect.member.session).second) link_->connect(effect.member.peer, effect.member.endpoints, effect.member.key);
  }
  void carry_out(Leave&) { exit_code_ = 0; }
  void carry_out(BeginAt& effect) {
    course_.moved = effect.place;
    moves_ = true;
  }
  template <class Job>
  void carry_out(Job& job) {
    compute_->give(std::move(job));
  }

  WorkerStats stats() const {
    WorkerStats stats;
    stats.forward_ns = time_.forward_ns;
    stats.input_gradient_ns = time_.input_gradient_ns;
    stats.weight_gradient_ns = time_.weight_gradient_ns;
    stats.optimizer_ns = time_.optimizer_ns;
    stats.rejected_frames = steps_->refused();
    link_->messenger().add_to(stats);
    return stats;
  }

  const WorkerOptions options_;
  const RunConfig run_;
  const Plan plan_;
  LineReader& endpoints_;
  WorkerCourse& course_;
  Seat seat_;
  PublicKey coordinator_key_{};
  int woken_ = -1;
  std::unique_ptr<ComputeThread> compute_;
  std::unique_ptr<ProcessLink> link_;
  std::optional<WorkerSteps> steps_;
  std::set<SessionId> known_;
  ComputeTime time_;
  std::string waits_for_;
  Time waits_since_{};
  bool connecting_ = false;
  Time give_up_ = kNever;
  bool moves_ = false;
  std::optional<int> exit_code_;
};

}  // namespace

int serve_worker(const RunConfig& run, const WorkerOptions& options) {
  catch_signals();
  LineReader endpoints(options.endpoints_fd);
  WorkerCourse course;
  while (true) {
    WorkerLife life(run, options, endpoints, course);
    if (const auto code = life.serve()) return *code;
  }
}

}  // namespace isthmus
