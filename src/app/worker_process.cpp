#include "app/worker_process.h"

#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <thread>
#include <utility>

#include "app/compute_thread.h"
#include "app/enroller.h"
#include "app/home_desk.h"
#include "app/leave_taking.h"
#include "app/process_link.h"
#include "app/received_run.h"
#include "app/worker_course.h"
#include "app/worker_state.h"
#include "base/input_file.h"
#include "config/config_file.h"
#include "config/load_run.h"
#include "process/clock.h"
#include "process/fresh_seed.h"
#include "process/signals.h"
#include "record/file_lock.h"
#include "router/worker_steps.h"
#include "stage/emulated_stage.h"
#include "stage/torch_module.h"
#include "store/disk_checkpoints.h"
#include "transport/local_address.h"

namespace isthmus::app {

namespace {

// Without a connection to the coordinator for so long, it is asked where it is now; with one that is silent, for so
// long.
constexpr Duration kLookForCoordinator = seconds(1), kSilence = seconds(5);
// What takes longer is told, so that nobody waits in front of a silent terminal.
constexpr Duration kTell = seconds(3);
// For so long a worker that is taken for another one asks again.
constexpr Duration kMoment = seconds(4);

// One life of a worker in one place.
class WorkerLife {
 public:
  WorkerLife(const spec::RunConfig& run, const protocol::Plan& plan, const WorkerOptions& options,
             const transport::KeyPair& keys, WorkerCourse& course)
      : options_(options),
        run_(run),
        plan_(plan),
        keys_(keys),
        course_(course),
        self_(course.enrolled.peer),
        leave_taking_(course, self_) {}

  ~WorkerLife() {
    if (compute_) compute_->join();
    if (woken_ >= 0) ::close(woken_);
  }

  // The process's exit code, or nothing: it goes on at course.moved.
  std::optional<int> serve() {
    if (auto ready = open(); !ready) {
      spdlog::error("worker {}: {}", self_, ready.error().message);
      return 1;
    }
    while (!exit_code_ && !moves_) turn();
    if (steps_) {
      course_.given.steps += steps_->given().steps;
      course_.given.microbatches += steps_->given().microbatches;
    }
    if (exit_code_) link_->flush(process::monotonic_now() + seconds(1));
    compute_->join();
    course_.trace.note_wait("", process::monotonic_now());
    course_.trace.append(compute_->trace());
    if (auto written = course_.trace.write(options_.home.trace(), self_, seat_.stage); !written)
      spdlog::error("worker {}: {}", self_, written.error().message);
    return exit_code_;
  }

 private:
  Status open() {
    seat_ = course_.moved.value_or(*course_.enrolled.place);
    woken_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    const auto& stage = plan_.stages[seat_.stage.value];
    ComputeThread::Options compute;
    compute.stage = seat_.stage;
    compute.checkpoints = std::make_unique<store::DiskCheckpoints>(
        store::CheckpointPlace{options_.checkpoints, seat_.stage, stage.first_layer, stage.end_layer, seat_.replica},
        run_.checkpoint.keep);
    compute.journal_folder = options_.home.journal(seat_.stage.value);
    // Only where it was moved to: a process that has just been started may have to learn that it serves elsewhere.
    if (course_.moved) forget_other_stages();
    compute.trace = options_.trace;
    compute.versions = {course_.enrolled.version};
    if (course_.enrolled.begun || course_.moved) {
      compute.versions = compute.checkpoints->versions();
      std::ranges::reverse(compute.versions);
      compute.versions.push_back(0);
    }
    const double slowdown = run_.emulated.slow_peer == self_.value ? run_.emulated.slow_factor : 1;
    compute.make = [run = run_, plan = plan_, place = seat_,
                    slowdown]() -> Result<std::unique_ptr<runner::StageCompute>> {
      if (run.emulated.devices) return stage::make_emulated_stage(run, plan, place.stage, place.replica, slowdown);
      const auto torch = stage::torch_module();
      if (!torch) return tl::unexpected(torch.error());
      return (*torch)->make_stage(run, place.stage, place.replica);
    };
    compute_ = std::make_unique<ComputeThread>(run_, plan_, std::move(compute), [fd = woken_] {
      const std::uint64_t one = 1;
      [[maybe_unused]] const auto n = ::write(fd, &one, sizeof one);
    });
    ProcessLink::Options link;
    link.self = self_;
    link.host = options_.listen;
    if (link.host.empty()) {
      auto own = transport::local_address_towards(course_.enrolled.coordinator.control);
      if (!own) return tl::unexpected(own.error());
      link.host = std::move(*own);
    }
    link.keys = keys_;
    coordinator_key_ = *course_.invite.coordinator_key();
    link.roster.add(kCoordinator, coordinator_key_);
    auto opened = ProcessLink::open(run_, plan_, std::move(link));
    if (!opened) return tl::unexpected(opened.error());
    link_ = std::move(*opened);
    link_->connect(kCoordinator, course_.enrolled.coordinator, coordinator_key_);
    began_ = heard_ = process::monotonic_now();
    return {};
  }

  void forget_other_stages() {
    namespace fs = std::filesystem;
    const fs::path mine = options_.home.journal(seat_.stage.value);
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(options_.home.journal(), ignored))
      if (entry.path() != mine) fs::remove_all(entry.path(), ignored);
  }

  void turn() {
    const Time due = steps_ ? steps_->next_due() : process::monotonic_now() + std::chrono::milliseconds(200);
    std::vector<int> descriptors = course_.desk.descriptors();
    descriptors.push_back(woken_);
    auto turn = link_->turn(due, descriptors);
    std::uint64_t count;
    [[maybe_unused]] const auto n = ::read(woken_, &count, sizeof count);

    const Time now = turn.now;
    stay_in_touch(turn, now);
    while (auto result = compute_->try_take()) take(std::move(*result), now);
    const LeaveTaking::Life life{steps_, [&](auto effects) { carry_out(std::move(effects)); },
                                 [&] { return state(now); }};
    if (const auto code = leave_taking_.turn(life, now); code && exit_code_.value_or(0) == 0) exit_code_ = code;
    if (exit_code_ || moves_ || !steps_) return;

    steps_->set_stats(stats());
    for (const PeerId peer : turn.connected) carry_out(steps_->peer_connected(peer, now));
    for (auto& arrival : turn.messages) {
      course_.trace.note_message("receive", arrival.message, now);
      if (arrival.from != kCoordinator)
        carry_out(steps_->message_received(arrival.from, std::move(arrival.message), now));
      else if (const auto* view = std::get_if<protocol::View>(&arrival.message))
        carry_out(steps_->view_received(*view, now));
    }
    for (const PeerId peer : turn.disconnected) carry_out(steps_->peer_lost(peer, now));
    if (now >= steps_->next_due()) carry_out(steps_->tick(now));
    course_.trace.note_wait(steps_->waiting_for(), now);
  }

  nlohmann::json state(Time now) const {
    return serving_state(course_, run_.run.name, seat_, steps_, {began_, heard_, now});
  }

  // A coordinator that was started again may be found elsewhere, and one that shut this worker out says nothing over
  // the connection that is left: whoever hears nothing asks at the door.
  void stay_in_touch(const ProcessLink::Turn& turn, Time now) {
    const auto has = [](const std::vector<PeerId>& peers) {
      return std::ranges::find(peers, kCoordinator) != peers.end();
    };
    const bool connects = has(turn.connected);
    if (connects || std::ranges::any_of(turn.messages, [](const auto& m) { return m.from == kCoordinator; })) {
      heard_ = now;
      course_.enroller.rest();
    }
    connected_ = (connected_ || connects) && !has(turn.disconnected);
    if (now - heard_ < (connected_ ? kSilence : kLookForCoordinator)) return;
    const auto heard = course_.enroller.listen(Duration{}, now);
    if (const auto* refusal = std::get_if<EnrolRefusal>(&heard)) {
      if (steps_ && steps_->is_leaving())
        exit_code_ = 0;
      else
        end(fmt::format("the coordinator does not let it back in: {}", refusal->sentence));
    } else if (const auto* answer = std::get_if<EnrolAnswer>(&heard)) {
      if (answer->peer != self_ || course_.enroller.invite()->run_id != course_.invite.run_id ||
          course_.enroller.invite()->coordinator != course_.invite.coordinator)
        return end(fmt::format("{} names another run by now; start it again to join that", options_.invite.name()));
      heard_ = now;
      course_.enrolled.coordinator = answer->coordinator;
      link_->connect(kCoordinator, answer->coordinator, coordinator_key_);
    } else if (options_.patience_s > 0 && now - heard_ > seconds(options_.patience_s)) {
      end(fmt::format("no coordinator for {:.0f} s: {}", options_.patience_s, course_.enroller.trouble()));
    }
  }

  void end(const std::string& why) {
    spdlog::error("worker {}: {}", self_, why);
    exit_code_ = 1;
  }

  void take(ComputeResult result, Time now) {
    if (result.time) time_ = *result.time;
    if (!result.error.empty()) {
      // The stage cannot be made, or not go on: everybody has to know why.
      spdlog::error("worker {} (stage {}): {}", self_, seat_.stage, result.error);
      exit_code_ = 1;
      return;
    }
    std::visit(
        [&](auto&& value) {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, runner::StageReady>)
            begin(value, now);
          else
            carry_out(steps_->job_done(std::move(value), now));
        },
        std::move(result.value));
  }

  void begin(const runner::StageReady& ready, Time now) {
    router::WorkerIdentity identity{self_,
                                    seat_.stage,
                                    seat_.replica,
                                    link_->endpoints(),
                                    ask_after(run_, plan_),
                                    run_.link.bandwidth_mbps * 1e6 / 8,
                                    ready.device};
    steps_.emplace(plan_, identity, router::WorkerSteps::Origin{ready.version, ready.timeline}, process::fresh_seed());
    carry_out(steps_->peer_connected(kCoordinator, now));
  }

  void carry_out(std::vector<protocol::WorkerEffect> effects) {
    for (auto& effect : effects) std::visit([&](auto& e) { carry_out(e); }, effect);
  }
  void carry_out(protocol::SendMessage& effect) {
    course_.trace.note_message("send", effect.message, process::monotonic_now());
    link_->send(effect.peer, effect.message);
  }
  void carry_out(protocol::LetIn& effect) { link_->allow(effect.member.peer, effect.member.key); }
  void carry_out(protocol::Dial& effect) {
    link_->connect(effect.member.peer, effect.member.endpoints, effect.member.key);
  }
  void carry_out(protocol::Leave&) { exit_code_ = 0; }
  void carry_out(protocol::BeginAt& effect) {
    course_.moved = effect.place;
    moves_ = true;
  }
  template <class Job>
  void carry_out(Job& job) {
    compute_->give(std::move(job));
  }

  protocol::WorkerStats stats() const {
    protocol::WorkerStats stats;
    stats.forward_ns = time_.forward_ns;
    stats.input_gradient_ns = time_.input_gradient_ns;
    stats.weight_gradient_ns = time_.weight_gradient_ns;
    stats.optimizer_ns = time_.optimizer_ns;
    stats.rejected_frames = steps_->refused();
    link_->messenger().add_to(stats);
    return stats;
  }

  const WorkerOptions options_;
  const spec::RunConfig run_;
  const protocol::Plan plan_;
  const transport::KeyPair keys_;
  WorkerCourse& course_;
  const PeerId self_;
  protocol::Place seat_;
  protocol::PublicKey coordinator_key_{};
  int woken_ = -1;
  std::unique_ptr<ComputeThread> compute_;
  std::unique_ptr<ProcessLink> link_;
  std::optional<router::WorkerSteps> steps_;
  ComputeTime time_;
  LeaveTaking leave_taking_;
  Time began_{};
  Time heard_{};  // of the coordinator
  bool connected_ = false;
  bool moves_ = false;
  std::optional<int> exit_code_;
};

// Who the worker is, and how it comes to serve.
class Worker {
 public:
  Worker(const WorkerOptions& options, const Identity& identity, HomeDesk desk)
      : options_(options),
        keys_(transport::key_pair_of(identity)),
        course_(options.invite, identity,
                {options.name, options.stage ? std::optional(StageId(*options.stage)) : std::nullopt, true, false,
                 process::fresh_seed()},
                std::move(desk), options.trace) {}

  int serve() {
    if (const auto code = wait_for_seat()) return *code;
    course_.enroller.rest();
    while (true) {
      WorkerLife life(*run_, plan_, options_, keys_, course_);
      if (const auto code = life.serve()) {
        if (*code == 0 && course_.leaves) spdlog::info("{} has left: {}", options_.name, course_.gave());
        course_.desk.say_last_words(course_.gave());
        return *code;
      }
    }
  }

 private:
  // The process's exit code if it ends before it has a seat.
  std::optional<int> wait_for_seat() {
    Time heard_of = process::monotonic_now();
    waits_for_ = "a coordinator";
    while (true) {
      const auto heard = course_.enroller.listen(std::chrono::milliseconds(50), process::monotonic_now());
      const Time now = process::monotonic_now();
      if (listen_at_home()) return leave_the_queue();
      if (const auto* refusal = std::get_if<EnrolRefusal>(&heard)) {
        // Whoever died a moment ago is not known to be dead yet.
        heard_of = now;
        if (!refused_since_) refused_since_ = now;
        if (refusal->for_a_moment && now - *refused_since_ < kMoment) continue;
        spdlog::error("{}: the coordinator does not let it in: {}", options_.name, refusal->sentence);
        return 1;
      }
      if (const auto* answer = std::get_if<EnrolAnswer>(&heard)) {
        heard_ = heard_of = now;
        refused_since_.reset();
        told_of_absence_ = false;
        if (auto taken = take(*answer); !taken) {
          spdlog::error("{}: {}", options_.name, taken.error().message);
          return 1;
        }
        if (answer->place) return std::nullopt;
        waits_for_ = "a seat: " + answer->waits;
        tell(fmt::format("enrolled as worker {}, waits for {}", answer->peer, waits_for_));
      } else if (now - heard_of > kTell) {
        waits_for_ = "a coordinator: " + course_.enroller.trouble();
        // Once, also if it names several doors.
        if (!std::exchange(told_of_absence_, true)) tell("waits for " + waits_for_);
        if (options_.patience_s > 0 && now - heard_of > seconds(options_.patience_s)) {
          spdlog::error("{}: no coordinator for {:.0f} s: {}", options_.name, options_.patience_s,
                        course_.enroller.trouble());
          return 1;
        }
      }
    }
  }

  Status take(const EnrolAnswer& answer) {
    course_.invite = *course_.enroller.invite();
    course_.enrolled = answer;
    if (run_) return {};
    auto received =
        receive_run(answer.spec, course_.invite.run_id, options_.invite.name(), {options_.overrides, options_.host});
    if (!received) return tl::unexpected(received.error());
    run_ = std::move(received->run);
    plan_ = std::move(received->plan);
    course_.enroller.have_spec();
    return {};
  }

  // Whether somebody wants it to leave.
  bool listen_at_home() {
    const auto state = [&] { return waiting_state(options_.name, waits_for_, heard_, process::monotonic_now()); };
    const auto leave = [] { return std::string("gives up its place in the queue"); };
    return course_.desk.look(state, leave) != HomeDesk::Wish::kStay;
  }

  int leave_the_queue() {
    const bool enrolled = course_.enrolled.peer != kCoordinator;
    if (!enrolled || !course_.enroller.say_good_bye()) return 130;
    spdlog::info("{} has left the queue", options_.name);
    course_.desk.say_last_words("it had waited for a seat");
    return 0;
  }

  void tell(const std::string& what) {
    if (what != told_) spdlog::info("{}: {}", options_.name, what);
    told_ = what;
  }

  const WorkerOptions options_;
  const transport::KeyPair keys_;
  std::optional<spec::RunConfig> run_;
  protocol::Plan plan_;
  WorkerCourse course_;
  std::string told_;
  std::optional<Time> refused_since_;
  bool told_of_absence_ = false;  // of the coordinator's
  std::string waits_for_;
  std::optional<Time> heard_;
};

}  // namespace

int serve_worker(WorkerOptions options) {
  process::catch_signals();
  const auto refuse = [](const Error& error) {
    spdlog::error("{}", error.message);
    return 1;
  };
  namespace fs = std::filesystem;
  std::error_code error;
  // A join file that is not there yet is waited for; what can never become one is not. A coordinator writes its host
  // file before it.
  if (const auto& file = options.invite.file; !file.empty())
    if (const auto join = fs::status(file, error); fs::exists(join) && !fs::is_regular_file(join))
      if (const auto opened = InputFile::open(file, "a run's join file"); !opened)
        return refuse(opened.error().at(file));
  if (const auto problems = config::host_override_problems(options.overrides); !problems.empty())
    return refuse({fmt::format("{}; what all must agree on comes from the run", problems.front().text())});
  std::jthread loads_torch;
  if (!options.host.empty() &&
      (fs::exists(options.host, error) || options.invite.given || fs::exists(options.invite.file, error))) {
    const auto host = config::config_file_text(options.host, "a host file");
    if (!host) return refuse({host.error().text()});
    // A device that computes needs libtorch; it is loaded while the worker asks for its seat.
    if (const std::string device = config::host_device(*host); !device.empty() && device != "emulated")
      loads_torch = std::jthread([] { (void)stage::torch_module(); });
  }
  fs::create_directories(options.home.path, error);
  if (error) return refuse({fmt::format("cannot make the folder {}: {}", options.home.path, error.message())});
  if (options.checkpoints.empty()) options.checkpoints = options.home.checkpoints();
  if (options.name.empty()) options.name = fs::canonical(options.home.path, error).filename().string().substr(0, 64);
  const auto lock = record::FileLock::take(options.home.lock(), "worker");
  if (!lock) return refuse(lock.error());
  const auto identity = Identity::keep(options.home.identity());
  if (!identity) return refuse(identity.error());
  // So that `isthmus join` alone goes on with this run.
  if (options.invite.given)
    if (auto kept = write_invite_file(options.home.invite(), *options.invite.given); !kept) return refuse(kept.error());
  auto desk = HomeDesk::open(options.home.path);
  if (!desk) return refuse(desk.error());
  return Worker(options, *identity, std::move(*desk)).serve();
}

}  // namespace isthmus::app
