#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "base/counter_random.h"
#include "router/worker_steps.h"
#include "scheduler/coordinator.h"
#include "sim/arithmetic.h"
#include "sim/checkers.h"
#include "sim/fault_schedule.h"

namespace isthmus::sim {

// The real coordinator and worker state machines in one thread, on a manual clock, over links, devices and disks that
// break as they are told. Everything that happens is a pure function of (plan, options): the same seed gives the same
// events, whose hash says so. What has to be true is checked all along (sim/checkers.h).
class Cluster {
 public:
  struct Options {
    std::uint64_t seed = 1;
    Duration latency = std::chrono::milliseconds(20);
    double bytes_per_second = 10e6;
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
  };

  Cluster(const Plan& plan, const Options& options);
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
  std::uint64_t rejected_frames() const { return rejected_frames_; }
  const std::vector<std::string>& violations() const { return checkers_.violations(); }
  void check_end(Duration late) { checkers_.over(ended_, late); }
  std::uint64_t commits() const { return checkers_.commits(); }
  const std::vector<LogRecord>& log() const { return log_; }
  // Events by name: "expelled", "rolled back", …
  const std::map<std::string, std::uint64_t>& events() const { return events_; }
  std::uint64_t replayed() const { return replayed_; }
  const std::vector<StepOutcome>& outcomes() const { return outcomes_; }
  // Adds what everybody waits for to the violations.
  void describe();
  const Coordinator& coordinator() const { return *coordinator_.machine; }
  const WorkerSteps& worker(PeerId peer) const { return *workers_.at(peer.value - 1).steps; }
  bool is_up(PeerId peer) const { return workers_.at(peer.value - 1).up; }
  // Microbatches whose weight gradient this worker has computed, over all steps.
  std::uint64_t computed(PeerId peer) const { return workers_.at(peer.value - 1).computed; }
  // Operations of this kind that it has begun, over all steps.
  std::uint64_t begun(PeerId peer, Operation operation) const { return workers_.at(peer.value - 1).begun[static_cast<std::size_t>(operation)]; }
  // Messages of this kind that anybody has sent.
  template <class Body>
  std::uint64_t sent() const {
    const auto at = sent_.find(Message(Body()).index());
    return at == sent_.end() ? 0 : at->second;
  }
  // A message from a peer that has its key but not its place: forged, stale, whatever.
  void inject(PeerId from, PeerId to, Message message);
  void set_slow(PeerId peer, double factor) { workers_.at(peer.value - 1).slow = factor; }

 private:
  struct Checkpoint {
    Weights weights;
    Weights anchor;
    std::uint32_t timeline = 0;
  };
  struct Disk {
    std::map<std::uint64_t, Checkpoint> checkpoints;
    // (step, attempt, microbatch, is a gradient)
    std::map<std::tuple<std::uint64_t, std::uint32_t, std::uint32_t, bool>, EncodedTensor> journal;
  };
  struct Device {
    Weights weights;
    Weights sum;
    std::multiset<std::uint32_t> in_sum;
    std::map<MicrobatchId, std::uint64_t> inputs;
    std::map<MicrobatchId, std::uint64_t> gradients;
    std::optional<Weights> combined;  // what apply uses instead of `sum`
    bool bad = false;                 // the sum is not finite
    bool combined_finite = true;
    // Replicas that step on their own: what they agreed on last, what every slice will add to it, and what this one has done since.
    Weights anchor;
    std::vector<std::uint64_t> agreed;
    std::uint32_t own_microbatches = 0;
    std::deque<WorkerEffect> jobs;
    bool busy = false;
    Time writing_until{};  // the newest checkpoint
    std::uint64_t version = 0;
  };
  struct Links {
    double slowdown = 1;
    Duration latency{};
    Duration jitter{};
    double loss = 0, duplicate = 0, reorder = 0, corrupt = 0;
    Time clogged_until{};
    Time free{};  // the uplink
  };
  struct Worker {
    PeerId peer;
    StageId stage;
    ReplicaId replica;
    std::unique_ptr<WorkerSteps> steps;
    bool up = false;
    bool left = false;
    std::uint64_t life = 0;
    Time frozen_until{};
    Time wake_at = kNever;
    double slow = 1;
    int die_in = -1;  // effects from now; -1: not
    std::uint64_t computed = 0;
    std::array<std::uint64_t, 3> begun{};
    std::set<SessionId> known;  // lives of others that it has connected to
    std::map<StageId, Disk> disks;
    Time disk_full_until{};
    Device device;
    Disk& disk() { return disks[stage]; }
  };
  struct CoordinatorProcess {
    std::unique_ptr<Coordinator> machine;
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

  std::uint64_t below(std::uint64_t limit) { return random_.below(limit, drawn_++); }
  bool chance(double p) { return p > 0 && static_cast<double>(below(1'000'000)) < p * 1e6; }
  void at(Time time, std::function<void()> run) { events_queue_.push({time, order_++, std::move(run)}); }
  void note(std::uint64_t a, std::uint64_t b) { hash_ = mix(mix(hash_, a), mix(b, static_cast<std::uint64_t>(now_.count()))); }
  Worker& worker_of(PeerId peer) { return workers_.at(peer.value - 1); }
  std::uint64_t life_of(PeerId peer) const { return peer == kCoordinator ? coordinator_.life : workers_.at(peer.value - 1).life; }
  bool up(PeerId peer) const { return peer == kCoordinator ? coordinator_.up : workers_.at(peer.value - 1).up; }

  void start_worker(PeerId peer, Place place);
  void leave_for(Worker& worker, Place place);
  void kill_worker(PeerId peer, Duration down);
  void start_coordinator(bool fresh);
  void kill_coordinator(Duration down);
  void begin(const Fault& fault);
  void end(const Fault& fault);
  void lose(PeerId a, PeerId b);
  void join(PeerId a, PeerId b);
  // Runs `step` in the process if it is the same life and not frozen; later if it is.
  void in_worker(PeerId peer, std::uint64_t life, std::function<std::vector<WorkerEffect>(WorkerSteps&)> step);
  void in_coordinator(std::uint64_t life, std::function<std::vector<CoordinatorEffect>(Coordinator&)> step);
  void wake_worker(Worker& worker);
  void wake_coordinator();

  void send(PeerId from, PeerId to, std::shared_ptr<const Message> message);
  void deliver(PeerId from, PeerId to, std::uint64_t to_life, const std::shared_ptr<const Message>& message);
  std::shared_ptr<const Message> through_the_codec(PeerId from, const Message& message, bool damage);

  void carry_out(PeerId peer, std::vector<WorkerEffect> effects);
  void carry_out(std::vector<CoordinatorEffect> effects);
  std::map<SessionId, std::multiset<std::uint32_t>> sums() const;

  void give(Worker& worker, WorkerEffect job);
  void start_job(Worker& worker);
  std::optional<JobResult> work(Worker& worker, WorkerEffect& job);
  Duration time_of(const Worker& worker, const WorkerEffect& job);
  double noise();
  void write_checkpoint(Worker& worker, std::uint64_t version, Checkpoint checkpoint);
  void write_journal(Worker& worker, const JobTag& tag, MicrobatchId m, bool gradient, const EncodedTensor& tensor);

  const Plan plan_;
  const Options options_;
  const CounterRandom random_;
  std::uint64_t drawn_ = 0;
  std::uint64_t order_ = 0;
  std::uint64_t lives_ = 0;
  std::uint64_t hash_ = 0;
  Time now_ = seconds(1000);
  std::priority_queue<Event> events_queue_;
  std::vector<Seat> seats_;
  std::vector<Worker> workers_;
  CoordinatorProcess coordinator_;
  std::vector<LogRecord> log_;
  std::map<PeerId, Links> links_;
  std::multiset<std::pair<PeerId, PeerId>> blocked_;
  std::map<std::tuple<PeerId, PeerId, Priority>, Time> last_due_;
  Checkers checkers_;
  std::map<std::string, std::uint64_t> events_;
  std::vector<StepOutcome> outcomes_;
  std::uint64_t delivered_ = 0;
  std::map<std::size_t, std::uint64_t> sent_;  // by kind of message
  std::uint64_t rejected_frames_ = 0;
  std::uint64_t replayed_ = 0;
  std::optional<RunEnded> ended_;
};

}  // namespace isthmus::sim
