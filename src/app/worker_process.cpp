#include "app/worker_process.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <thread>
#include <utility>

#include "app/enroller.h"
#include "app/home_desk.h"
#include "app/received_run.h"
#include "app/shortage.h"
#include "app/worker_course.h"
#include "app/worker_life.h"
#include "app/worker_state.h"
#include "base/input_file.h"
#include "config/config_file.h"
#include "config/load_run.h"
#include "process/clock.h"
#include "process/fresh_seed.h"
#include "process/signals.h"
#include "record/file_lock.h"
#include "stage/torch_module.h"

namespace isthmus::app {

namespace {

// What takes longer is told, so that nobody waits in front of a silent terminal.
constexpr Duration kTell = seconds(3);
// For so long a worker that is taken for another one asks again.
constexpr Duration kMoment = seconds(4);

// Who the worker is, and how it comes to serve.
class Worker {
 public:
  Worker(const WorkerOptions& options, const Identity& identity, HomeDesk desk)
      : options_(options),
        keys_(transport::key_pair_of(identity)),
        course_(options.invite, identity,
                {options.name,
                 options.stage ? std::optional(StageId(*options.stage)) : std::nullopt,
                 true,
                 {},
                 process::fresh_seed()},
                std::move(desk), options.trace) {}

  int serve() {
    if (const auto code = wait_for_seat()) return *code;
    course_.enroller.rest();
    while (true) {
      if (const auto code = live(*run_, plan_, options_, keys_, course_)) {
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
        if (answer->place) return refuses(*answer->place);
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

  // A stage that does not fit is not begun; both sides are told, and it goes to somebody else.
  std::optional<int> refuses(const protocol::Place& place) {
    const std::string why = shortage(*run_, plan_, place.stage, options_.checkpoints);
    if (why.empty()) return std::nullopt;
    (void)course_.enroller.say_good_bye(why);
    spdlog::error("{}: {}", options_.name, why);
    return 1;
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
    choose_device();
    course_.enroller.have_spec();
    return {};
  }

  // Replicas that have to agree to the bit compute alike, and so does a deterministic run: with processors, unless
  // somebody says otherwise.
  void choose_device() {
    const bool agrees = run_->sync.mode == "exact" &&
                        std::ranges::any_of(plan_.stages, [](const auto& stage) { return stage.replicas > 1; });
    if (!looks_for_cuda() || run_->emulated.devices || run_->run.deterministic || agrees) return;
    const auto torch = stage::torch_module();
    if (!torch || !(*torch)->has_cuda()) return;
    run_->host.device = "cuda";
    spdlog::info("{}: computes with CUDA", options_.name);
  }

  // Nobody has said what computes.
  bool looks_for_cuda() const {
    const auto says = [](const std::string& set) { return set.starts_with("pipeline.device"); };
    if (options_.device != "auto" || std::ranges::any_of(options_.overrides, says)) return false;
    if (options_.host.empty()) return true;
    const auto text = config::config_file_text(options_.host, "a host file");
    return text && config::host_device(*text).empty();
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
