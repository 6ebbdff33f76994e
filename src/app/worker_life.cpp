#include "app/worker_life.h"

#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "app/checkpoint_courier.h"
#include "app/compute_thread.h"
#include "app/enroller.h"
#include "app/home_desk.h"
#include "app/leave_taking.h"
#include "app/process_link.h"
#include "app/received_run.h"
#include "app/vaulted_checkpoints.h"
#include "app/worker_state.h"
#include "process/clock.h"
#include "process/fresh_seed.h"
#include "process/signals.h"
#include "relay/tunnel.h"
#include "router/worker_steps.h"
#include "scheduler/coordinator/deposits.h"
#include "stage/emulated_stage.h"
#include "stage/torch_module.h"
#include "transport/address.h"
#include "transport/local_address.h"

namespace isthmus::app {

namespace {

// Without a connection to the coordinator for so long, it is asked where it is now; with one that is silent, for so
// long.
constexpr Duration kLookForCoordinator = seconds(1), kSilence = seconds(5);

// A home router has so long to let this worker's ports through before the coordinator looks whether it can dial it.
constexpr Duration kRouterAnswers = seconds(4);

// New passes for relays are asked for when half of their time is over, by this machine's own reckoning; or, if that
// comes to nothing, a little later.
constexpr Duration kRenew = seconds(kPassSeconds / 2.0), kRenewAgain = seconds(60);

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
    if (checkpoints_) checkpoints_->close();
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
    checkpoints_->close();
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
    auto checkpoints = std::make_unique<VaultedCheckpoints>(
        store::CheckpointPlace{options_.checkpoints, seat_.stage, stage.first_layer, stage.end_layer, seat_.replica},
        run_.checkpoint.keep);
    checkpoints_ = checkpoints.get();
    courier_.emplace(*checkpoints, CheckpointCourier::Options{coordinator::Deposits::bytes_max(plan_, seat_.stage),
                                                              ask_after(run_, plan_)});
    compute.checkpoints = std::move(checkpoints);
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
    auto own = transport::local_address_towards(course_.enrolled.coordinator.control);
    if (!own) return tl::unexpected(own.error());
    ProcessLink::Options link;
    link.self = self_;
    // The address of a laptop changes; who listens at all of them goes on.
    const bool at_home = transport::is_loopback(*own);
    const std::string host = !options_.listen.empty() ? options_.listen
                             : at_home                ? *own
                                                      : transport::wildcard_like(*own);
    link.host = host;
    link.keys = keys_;
    coordinator_key_ = *course_.invite.coordinator_key();
    link.roster.add(kCoordinator, coordinator_key_);
    auto opened = ProcessLink::open(run_, plan_, std::move(link));
    if (!opened) return tl::unexpected(opened.error());
    link_ = std::move(*opened);
    listens_everywhere_ = transport::is_wildcard(host);
    endpoints_ = listens_everywhere_ ? transport::at_host(link_->endpoints(), *own) : link_->endpoints();
    // A coordinator on the same network is reached, and reaches, without a router.
    const auto there = transport::read_address(course_.enrolled.coordinator.control);
    if (options_.map_ports && options_.listen.empty() && transport::is_behind_router(*own) && there &&
        !transport::is_behind_router(there->host))
      ask_router();
    if (auto ready = use_relays(); !ready) return ready;
    link_->connect(kCoordinator, course_.enrolled.coordinator, coordinator_key_);
    began_ = heard_ = process::monotonic_now();
    // Whoever has moved may have its passes since long ago.
    renew_at_ = !tunnel_ ? kNever : course_.moved ? heard_ : heard_ + kRenew;
    return {};
  }

  // The machine may have another address than before.
  void find_own_address() {
    const auto own = transport::local_address_towards(course_.enrolled.coordinator.control);
    if (!listens_everywhere_ || !own) return;
    endpoints_ = transport::at_host(link_->endpoints(), *own);
    if (steps_) steps_->set_endpoints(endpoints_);
  }

  void ask_router() {
    if (!course_.ports) course_.ports.emplace();
    std::vector<std::uint16_t> ports;
    for (const auto& endpoint : {endpoints_.control, endpoints_.bulk})
      if (const auto address = transport::read_address(endpoint)) ports.push_back(address->port);
    course_.ports->want(std::move(ports));
  }

  // The tunnel stays as long as the sockets to which it leads.
  Status use_relays() {
    const auto& relays = course_.enrolled.relays;
    if (relays.empty() && !tunnel_) return {};
    if (!tunnel_) {
      auto opened = relay::Tunnel::open(link_->endpoints());
      if (!opened) return tl::unexpected(opened.error());
      tunnel_ = std::move(*opened);
    }
    tunnel_->use(relays);
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
    const Time due = steps_ ? std::min(steps_->next_due(), courier_->next_due(steps_->uplink()))
                            : process::monotonic_now() + std::chrono::milliseconds(200);
    std::vector<int> descriptors = course_.desk.descriptors();
    descriptors.push_back(woken_);
    auto turn = link_->turn(due, descriptors);
    std::uint64_t count;
    [[maybe_unused]] const auto n = ::read(woken_, &count, sizeof count);

    const Time now = turn.now;
    stay_in_touch(turn, now);
    // What comes after the stage's being ready is for the steps, which begin with it.
    while (!ready_ || router_has_answered(now)) {
      if (ready_) begin(*std::exchange(ready_, {}), now);
      auto result = compute_->try_take();
      if (!result) break;
      take(std::move(*result), now);
    }
    const LeaveTaking::Life life{steps_, [&](auto effects) { carry_out(std::move(effects)); },
                                 [&] { return state(now); }};
    if (const auto code = leave_taking_.turn(life, now); code && exit_code_.value_or(0) == 0) exit_code_ = code;
    if (exit_code_ || moves_ || !steps_) return;

    steps_->set_stats(stats());
    // In turns with those that fetch a snapshot: who gave last comes last.
    if (!vault_had_last_) give_to_vault(now);
    const std::uint64_t given = steps_->uplink().spares();
    for (const auto& connection : turn.connected) carry_out(steps_->peer_connected(connection.peer, now));
    for (auto& arrival : turn.messages) {
      course_.trace.note_message("receive", arrival.message, now);
      if (arrival.from != kCoordinator)
        carry_out(steps_->message_received(arrival.from, std::move(arrival.message), now));
      else
        hear(std::move(arrival.message), now);
    }
    for (const PeerId peer : turn.disconnected) carry_out(steps_->peer_lost(peer, now));
    if (now >= steps_->next_due()) carry_out(steps_->tick(now));
    if (steps_->uplink().spares() != given) vault_had_last_ = false;
    give_to_vault(now);
    course_.trace.note_wait(steps_->waiting_for(), now);
  }

  void give_to_vault(Time now) {
    const std::uint64_t given = steps_->uplink().spares();
    for (auto& message : courier_->turn(steps_->view().timeline(), steps_->uplink(), now))
      link_->send(kCoordinator, message);
    if (steps_->uplink().spares() != given) vault_had_last_ = true;
  }

  // What the coordinator says.
  void hear(protocol::Message message, Time now) {
    if (const auto* view = std::get_if<protocol::View>(&message)) {
      checkpoints_->offer(view->vaulted);
      carry_out(steps_->view_received(*view, now));
    } else if (const auto* ids = std::get_if<protocol::TokenIds>(&message)) {
      carry_out(steps_->tokens_received(*ids, now));
    } else if (const auto* request = std::get_if<protocol::CheckpointRequest>(&message)) {
      courier_->received(*request);
    } else if (const auto* piece = std::get_if<protocol::CheckpointPiece>(&message)) {
      courier_->received(*piece);
    }
  }

  nlohmann::json state(Time now) const {
    auto state = serving_state(course_, run_.run.name, seat_, steps_, {began_, heard_, now});
    if (const auto comes = courier_->progress(); !comes.empty()) state["does"] = "waits for " + comes;
    const auto relays = tunnel_ ? std::optional(tunnel_->figures()) : std::nullopt;
    const auto router = course_.ports ? course_.ports->outcome() : std::nullopt;
    if (auto reach = reach_text(router, relays); !reach.empty()) state["reach"] = std::move(reach);
    return state;
  }

  // A coordinator that was started again may be found elsewhere, and one that shut this worker out says nothing over
  // the connection that is left: whoever hears nothing asks at the door.
  void stay_in_touch(const ProcessLink::Turn& turn, Time now) {
    const bool connects =
        std::ranges::find(turn.connected, kCoordinator, &transport::PeerConnected::peer) != turn.connected.end();
    if (connects || std::ranges::any_of(turn.messages, [](const auto& m) { return m.from == kCoordinator; })) {
      heard_ = now;
      course_.enroller.rest();
    }
    if (connects) courier_->ask_anew();
    connected_ =
        (connected_ || connects) && std::ranges::find(turn.disconnected, kCoordinator) == turn.disconnected.end();
    const bool elsewhere = turn.slept || (connects && was_connected_);
    if (elsewhere) find_own_address();
    if (tunnel_ && elsewhere) tunnel_->again();
    if (course_.ports && elsewhere) course_.ports->again();
    was_connected_ = was_connected_ || connects;
    const bool in_touch = now - heard_ < (connected_ ? kSilence : kLookForCoordinator);
    if (in_touch && now < renew_at_) return;
    const auto heard = course_.enroller.listen(Duration{}, now);
    if (const auto* refusal = std::get_if<EnrolRefusal>(&heard)) {
      // A run that is about to end lets nobody in, and this one has work to do yet.
      if (in_touch) {
        renew_at_ = now + kRenewAgain;
        course_.enroller.rest();
      } else if (steps_ && steps_->is_leaving())
        exit_code_ = 0;
      else
        end(fmt::format("the coordinator does not let it back in: {}", refusal->sentence));
    } else if (const auto* answer = std::get_if<EnrolAnswer>(&heard)) {
      if (answer->peer != self_ || course_.enroller.invite()->run_id != course_.invite.run_id ||
          course_.enroller.invite()->coordinator != course_.invite.coordinator)
        return end(fmt::format("{} names another run by now; start it again to join that", options_.invite.name()));
      heard_ = now;
      course_.enroller.rest();
      course_.enrolled.relays = answer->relays;
      renew_at_ = now + kRenew;
      if (const auto used = use_relays(); !used) spdlog::error("worker {}: {}", self_, used.error().message);
      if (in_touch) return;
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
            ready_ = value;
          else
            carry_out(steps_->job_done(std::move(value), now));
        },
        std::move(result.value));
  }

  // The coordinator looks once whether it can dial this worker: when it hears where that is. The router was asked while
  // the stage was made, so this is rarely waited for.
  bool router_has_answered(Time now) const {
    return !course_.ports || course_.ports->outcome() || now - began_ > kRouterAnswers;
  }

  void begin(const runner::StageReady& ready, Time now) {
    router::WorkerIdentity identity{self_,
                                    seat_.stage,
                                    seat_.replica,
                                    endpoints_,
                                    ask_after(run_, plan_),
                                    run_.uplink(),
                                    ready.device,
                                    tunnel_ != nullptr,
                                    run_.host.downlink_mbps * 1e6 / 8};
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
    const auto& member = effect.member;
    switch (effect.way) {
      case protocol::Way::kNetwork:
        return link_->connect(member.peer, member.endpoints, member.key);
      case protocol::Way::kOutside:
        return link_->connect(member.peer, member.location.outside, member.key);
      case protocol::Way::kRelay:
        break;
    }
    const auto towards = tunnel_->towards(member.peer);
    if (!towards) return spdlog::error("worker {}: {}", self_, towards.error().message);
    link_->connect(member.peer, *towards, member.key);
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
  VaultedCheckpoints* checkpoints_ = nullptr;  // the compute thread's
  std::optional<CheckpointCourier> courier_;
  std::unique_ptr<ComputeThread> compute_;
  std::unique_ptr<ProcessLink> link_;
  protocol::Endpoints endpoints_;  // of this worker, on its own network
  bool listens_everywhere_ = false;
  std::unique_ptr<relay::Tunnel> tunnel_;    // null: the run has no relays
  std::optional<runner::StageReady> ready_;  // the stage is made, and nobody knows yet
  std::optional<router::WorkerSteps> steps_;
  ComputeTime time_;
  LeaveTaking leave_taking_;
  Time began_{};
  Time heard_{};                 // of the coordinator
  Time renew_at_ = kNever;       // passes for relays
  bool vault_had_last_ = false;  // of what training left of the uplink
  bool connected_ = false;
  bool was_connected_ = false;
  bool moves_ = false;
  std::optional<int> exit_code_;
};

}  // namespace

std::optional<int> live(const spec::RunConfig& run, const protocol::Plan& plan, const WorkerOptions& options,
                        const transport::KeyPair& keys, WorkerCourse& course) {
  return WorkerLife(run, plan, options, keys, course).serve();
}

}  // namespace isthmus::app
