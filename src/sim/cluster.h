#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "router/worker_steps.h"
#include "scheduler/coordinator/coordinator.h"
#include "scheduler/coordinator/token_desk.h"
#include "sim/arithmetic.h"
#include "sim/checkers.h"
#include "sim/draws.h"
#include "sim/fault_schedule.h"
#include "sim/simulated_device.h"
#include "sim/simulated_disk.h"
#include "sim/simulated_network.h"

namespace isthmus::sim {

// The real coordinator and worker state machines in one thread, on a manual clock, over links, devices and disks that
// break as they are told. Everything that happens is a pure function of (plan, options): the same seed gives the same
// events, whose hash says so. What has to be true is checked all along (sim/checkers.h).
class Cluster {
 public:
  using MakeRunner = SimulatedDevice::MakeRunner;
  struct Options {
    std::uint64_t seed = 1;
    Duration latency = std::chrono::milliseconds(20);
    double bytes_per_second = 10e6;
    // How long a tensor keeps its sender's uplink busy, whatever its size here; other messages do not wait for it.
    // Zero: as its bytes say, in the order of all messages.
    Duration tensor{};
    // Of one microbatch on one device.
    Duration forward = std::chrono::milliseconds(10);
    Duration input_gradient = std::chrono::milliseconds(10);
    Duration weight_gradient = std::chrono::milliseconds(10);
    std::uint64_t journal_entries = 1'000'000;  // per worker; older steps make room
    Duration measure{};                         // of every link, as often; zero: of none
    double noise = 0;                           // operations take up to so much longer or shorter, as a share
    double hiccups = 0;                         // … and this share of them twice as long
    std::uint32_t patience = 8;                 // bad steps in a row after which the run goes back
    bool coordinator_times = true;              // false: nobody is expelled for silence (for tests by hand)
    // Tests put in a runner that lies, and let nobody dial.
    MakeRunner make_runner = [](const protocol::Plan& plan, runner::JobRunner::Options options, store::Journal* journal,
                                store::CheckpointStore* checkpoints) {
      return std::make_unique<runner::JobRunner>(plan, std::move(options), journal, checkpoints);
    };
    bool dial = true;
    bool homes = false;  // the workers live in homes (sim/homes.h), which the seed gives
  };

  Cluster(const protocol::Plan& plan, const Options& options);
  Cluster(const Cluster&) = delete;

  // Faults to come; each begins and ends by itself.
  void add(const Fault& fault);
  // Runs for at most `limit`; true if the run has ended.
  bool run(Duration limit);
  // Runs until `stop` says so or the limit; true if it said so.
  bool run_until(const std::function<bool()>& stop, Duration limit);

  bool ended() const { return ended_.has_value(); }
  bool finished() const { return ended_ && ended_->finished; }
  Time now() const { return now_; }
  std::uint64_t hash() const { return hash_; }
  std::uint64_t delivered() const { return delivered_; }
  std::uint64_t rejected_frames() const { return network_.rejected_frames(); }
  const std::vector<std::string>& violations() const { return checkers_.violations(); }
  void check_end(Duration late) { checkers_.over(ended_, late); }
  std::uint64_t commits() const { return checkers_.commits(); }
  const std::vector<coordinator::LogRecord>& log() const { return log_; }
  // Events by name: "expelled", "rolled back", …
  const std::map<std::string, std::uint64_t>& events() const { return events_; }
  std::uint64_t replayed() const { return replayed_; }
  // Adds what everybody waits for to the violations.
  void describe();
  const coordinator::Coordinator& coordinator() const { return *coordinator_.machine; }
  const router::WorkerSteps& worker(PeerId peer) const { return *workers_.at(peer.value - 1).steps; }
  bool is_up(PeerId peer) const { return workers_.at(peer.value - 1).up; }
  // Microbatches whose weight gradient this worker has computed, over all steps.
  std::uint64_t computed(PeerId peer) const { return workers_.at(peer.value - 1).tally.computed; }
  // Operations of this kind that it has begun, over all steps.
  std::uint64_t begun(PeerId peer, protocol::Operation operation) const {
    return workers_.at(peer.value - 1).tally.begun[static_cast<std::size_t>(operation)];
  }
  // Messages of this kind that anybody has sent.
  template <class Body>
  std::uint64_t sent() const {
    const auto at = sent_.find(protocol::Message(Body()).index());
    return at == sent_.end() ? 0 : at->second;
  }
  void set_slow(PeerId peer, double factor) { workers_.at(peer.value - 1).slow = factor; }

 private:
  // What outlives a worker's process, stage by stage.
  struct Disk {
    std::unique_ptr<SimulatedJournal> journal;
    std::unique_ptr<SimulatedCheckpoints> checkpoints;
  };
  struct Worker {
    PeerId peer;
    StageId stage;
    ReplicaId replica;
    std::unique_ptr<router::WorkerSteps> steps;
    bool up = false;
    bool left = false;
    bool asked_to_leave = false;  // by a fault: it comes back
    std::uint64_t life = 0;
    Time frozen_until{};
    Time wake_at = kNever;
    double slow = 1;
    int die_in = -1;  // effects from now; -1: not
    SimulatedDevice::Tally tally;
    std::map<StageId, Disk> disks;
    Time disk_full_until{};
    std::unique_ptr<SimulatedDevice> device;
  };
  struct CoordinatorProcess {
    std::unique_ptr<coordinator::Coordinator> machine;
    std::optional<coordinator::TokenDesk> tokens;
    bool up = false;
    std::uint64_t life = 0;
    Time frozen_until{};
    Time wake_at = kNever;
    int die_in = -1;
    Time disk_full_until{};
  };
  struct Event {
    Time time;
    std::uint64_t order;
    std::function<void()> run;
    bool operator<(const Event& other) const { return std::tie(time, order) > std::tie(other.time, other.order); }
  };

  void at(Time time, std::function<void()> run) { events_queue_.push({time, order_++, std::move(run)}); }
  void note(std::uint64_t a, std::uint64_t b) {
    hash_ = mix(mix(hash_, a), mix(b, static_cast<std::uint64_t>(now_.count())));
  }
  Worker& worker_of(PeerId peer) { return workers_.at(peer.value - 1); }
  std::uint64_t life_of(PeerId peer) const {
    return peer == kCoordinator ? coordinator_.life : workers_.at(peer.value - 1).life;
  }
  bool up(PeerId peer) const { return peer == kCoordinator ? coordinator_.up : workers_.at(peer.value - 1).up; }

  void start_worker(PeerId peer, protocol::Place place);
  void hang_up(Worker& worker);
  void leave_for(Worker& worker, protocol::Place place);
  void go_for_a_while(Worker& worker);
  void ask_for_seat(PeerId peer);
  bool enrol(PeerId peer);
  void kill_worker(PeerId peer, Duration down);
  void start_coordinator(bool fresh);
  void kill_coordinator(Duration down);
  void begin(const Fault& fault);
  void end(const Fault& fault);
  void lose(PeerId a, PeerId b);
  void cut_off(PeerId peer, bool from_the_coordinator);
  void connect_to_all(PeerId peer);
  void join(PeerId a, PeerId b);
  void connect(PeerId a, PeerId b);
  // Runs `step` in the process if it is the same life and not frozen; later if it is.
  void in_worker(PeerId peer, std::uint64_t life,
                 std::function<std::vector<protocol::WorkerEffect>(router::WorkerSteps&)> step);
  void in_coordinator(std::uint64_t life,
                      std::function<std::vector<coordinator::CoordinatorEffect>(coordinator::Coordinator&)> step);
  void wake_worker(Worker& worker);
  void wake_coordinator();

  void send(PeerId from, PeerId to, std::shared_ptr<const protocol::Message> message);
  void deliver(PeerId from, PeerId to, std::uint64_t to_life, const std::shared_ptr<const protocol::Message>& message);
  void carry_out(PeerId peer, std::vector<protocol::WorkerEffect> effects);
  void carry_out(std::vector<coordinator::CoordinatorEffect> effects);
  void give_tokens();
  std::map<SessionId, std::multiset<std::uint32_t>> sums() const;

  Disk& disk_of(Worker& worker);
  runner::StageReady start_device(Worker& worker);

  const protocol::Plan plan_;
  const Options options_;
  Draws draws_;
  std::uint64_t order_ = 0;
  std::uint64_t lives_ = 0;
  std::uint64_t hash_ = 0;
  Time now_ = seconds(1000);
  std::priority_queue<Event> events_queue_;
  std::vector<coordinator::Seat> seats_;
  std::vector<Worker> workers_;
  CoordinatorProcess coordinator_;
  std::vector<coordinator::LogRecord> log_;
  Checkers checkers_;
  SimulatedNetwork network_;
  std::map<std::string, std::uint64_t> events_;
  std::uint64_t delivered_ = 0;
  std::map<std::size_t, std::uint64_t> sent_;  // by kind of message
  std::uint64_t replayed_ = 0;
  std::optional<coordinator::RunEnded> ended_;
};

}  // namespace isthmus::sim
