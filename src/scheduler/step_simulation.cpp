#include "scheduler/step_simulation.h"

#include <algorithm>
#include <array>
#include <deque>
#include <queue>

#include "base/counter_random.h"

namespace isthmus {

namespace {

constexpr std::uint64_t kChunkBytes = 64 * 1024;
// What headers, CURVE and TCP/IP add; the figures of wire/shaped_transport.cpp.
constexpr double kChunkOverhead = 82;
constexpr double kSegmentShare = 1514.0 / 1448.0;

// A tensor on its way from one worker to another.
struct Transfer {
  std::uint32_t from;
  std::uint32_t to;
  MicrobatchId microbatch;
  bool gradient;
  std::uint64_t bytes_left;
  Time last_arrival{};
};

struct Event {
  Time time;
  std::uint64_t order;  // of creation: equal times keep it
  enum class Kind { kOperationDone, kChunkSent, kArrived } kind;
  std::uint32_t worker;
  Task task{};
  std::size_t transfer = 0;
};
struct Later {
  bool operator()(const Event& a, const Event& b) const { return std::pair(a.time, a.order) > std::pair(b.time, b.order); }
};

struct Worker {
  StageSchedule schedule;
  bool busy = false;
  bool sending = false;
  std::array<std::deque<std::size_t>, 2> uplink;  // 0: gradients, 1: activations
  Time downlink_free{};
  std::uint64_t bytes_queued = 0;
  Duration owed{};  // work it was given and has not done
};

class Simulation {
 public:
  explicit Simulation(const StepSimulationInput& input)
      : in_(input), training_(input.plan.microbatches), all_(training_ + input.evaluation_microbatches), random_(input.link.seed, "step simulation") {
    for (std::uint32_t s = 0; s < input.plan.stages.size(); ++s) {
      const auto& stage = input.plan.stages[s];
      first_.push_back(static_cast<std::uint32_t>(workers_.size()));
      for (std::uint32_t r = 0; r < stage.replicas; ++r) {
        workers_.push_back({StageSchedule(input.plan.schedule, stage.credits)});
        out_.workers.push_back({StageId(s), ReplicaId(r)});
      }
    }
    first_.push_back(static_cast<std::uint32_t>(workers_.size()));
    holder_.resize(input.plan.stages.size(), std::vector<std::uint32_t>(all_));
  }

  StepSimulation run() {
    deal_heads();
    for (std::uint32_t w = 0; w < first_[1]; ++w) start_next(w);
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.time;
      if (event.kind == Event::Kind::kOperationDone) operation_done(event.worker, event.task);
      if (event.kind == Event::Kind::kChunkSent) chunk_sent(event.worker, event.transfer);
      if (event.kind == Event::Kind::kArrived) arrived(event.transfer);
    }
    // The last report goes to the coordinator, its commit comes back.
    out_.step = now_ + combination() + 2 * in_.link.latency + in_.commit;
    Duration most{};
    for (const auto& worker : out_.workers) most = std::max(most, worker.busy);
    out_.efficiency = to_seconds(most) / to_seconds(out_.step);
    return std::move(out_);
  }

 private:
  void push(Time time, Event::Kind kind, std::uint32_t worker, Task task, std::size_t transfer) {
    events_.push({time, ++orders_, kind, worker, task, transfer});
  }

  std::uint32_t stage_of(std::uint32_t w) const { return out_.workers[w].stage.value; }

  // As the coordinator does it: the next one goes to the head that is furthest behind its share.
  void deal_heads() {
    for (std::uint32_t m = 0; m < all_; ++m) {
      std::uint32_t head = 0;
      const auto behind = [&](std::uint32_t w) { return (out_.workers[w].microbatches + 1) * to_seconds(in_.costs[w].total()); };
      for (std::uint32_t w = 1; w < first_[1]; ++w)
        if (behind(w) < behind(head)) head = w;
      give(head, MicrobatchId(m));
      workers_[head].schedule.forward_ready(MicrobatchId(m), m < training_);
    }
  }

  void give(std::uint32_t w, MicrobatchId m) {
    const OperationCosts& costs = in_.costs[w];
    holder_[stage_of(w)][m.value] = w;
    ++out_.workers[w].microbatches;
    workers_[w].owed += m.value < training_ ? costs.total() : costs.forward;
  }

  // The replica of the next stage that would be done with it first.
  std::uint32_t next_hop(std::uint32_t w, std::uint64_t bytes) const {
    const std::uint32_t stage = stage_of(w) + 1;
    const double queued = static_cast<double>(workers_[w].bytes_queued + bytes);
    const Time arrives = now_ + in_.link.latency + seconds(queued * kSegmentShare * 8 / in_.link.bits_per_second);
    const auto finish = [&](std::uint32_t hop) { return std::max(arrives, now_ + workers_[hop].owed) + in_.costs[hop].total(); };
    std::uint32_t best = first_[stage];
    for (std::uint32_t hop = best + 1; hop < first_[stage + 1]; ++hop)
      if (finish(hop) < finish(best)) best = hop;
    return best;
  }

  void start_next(std::uint32_t w) {
    Worker& worker = workers_[w];
    WorkerSimulation& out = out_.workers[w];
    if (worker.busy) return;
    const auto task = worker.schedule.next();
    out.in_flight_max = std::max(out.in_flight_max, worker.schedule.in_flight());
    if (!task) return;
    worker.busy = true;
    const Duration takes = time_of(w, task->operation);
    out.busy += takes;
    out_.spans.push_back({w, *task, now_, now_ + takes});
    push(now_ + takes, Event::Kind::kOperationDone, w, *task, 0);
  }

  Duration time_of(std::uint32_t w, Operation operation) const {
    const OperationCosts& costs = in_.costs[w];
    return operation == Operation::kForward ? costs.forward : operation == Operation::kInputGradient ? costs.input_gradient : costs.weight_gradient;
  }

  void operation_done(std::uint32_t w, Task task) {
    Worker& worker = workers_[w];
    worker.busy = false;
    worker.owed -= time_of(w, task.operation);
    const std::uint32_t stage = stage_of(w);
    const bool training = task.microbatch.value < training_;
    if (task.operation == Operation::kForward) {
      if (stage + 1 == in_.plan.stages.size()) {
        if (training) worker.schedule.gradient_ready(task.microbatch);
      } else {
        const std::uint64_t bytes = in_.plan.token_bytes + in_.plan.forward_bytes;
        const std::uint32_t hop = next_hop(w, bytes);
        give(hop, task.microbatch);
        send(w, hop, task.microbatch, false, bytes);
      }
    } else if (task.operation == Operation::kInputGradient) {
      worker.schedule.input_gradient_done(task.microbatch);
      if (stage > 0) send(w, holder_[stage - 1][task.microbatch.value], task.microbatch, true, in_.plan.backward_bytes);
    }
    start_next(w);
  }

  void send(std::uint32_t from, std::uint32_t to, MicrobatchId m, bool gradient, std::uint64_t bytes) {
    bytes = std::max<std::uint64_t>(bytes, 1);
    transfers_.push_back({from, to, m, gradient, bytes});
    workers_[from].bytes_queued += bytes;
    workers_[from].uplink[gradient ? 0 : 1].push_back(transfers_.size() - 1);
    start_uplink(from);
  }

  void start_uplink(std::uint32_t w) {
    Worker& worker = workers_[w];
    if (worker.sending) return;
    auto queue = std::ranges::find_if(worker.uplink, [](const auto& q) { return !q.empty(); });
    if (queue == worker.uplink.end()) return;
    worker.sending = true;
    const std::size_t id = queue->front();
    Transfer& transfer = transfers_[id];
    const std::uint64_t chunk = std::min(kChunkBytes, transfer.bytes_left);
    transfer.bytes_left -= chunk;
    worker.bytes_queued -= chunk;
    if (transfer.bytes_left == 0) queue->pop_front();
    Duration takes = seconds((static_cast<double>(chunk) + kChunkOverhead) * kSegmentShare * 8 / in_.link.bits_per_second);
    Duration again{};
    const Duration once = takes;
    while (in_.link.loss > 0 && uniform() < in_.link.loss) {
      takes += once;
      again += 2 * in_.link.latency;
    }
    out_.workers[w].bytes_up += chunk;
    out_.workers[w].uplink_busy += takes;
    // A busy downlink holds the chunk back; an idle one has been receiving it all along.
    Duration flight = in_.link.latency + again;
    if (in_.link.jitter > Duration{}) flight += seconds(uniform() * to_seconds(in_.link.jitter));
    Time& downlink = workers_[transfer.to].downlink_free;
    const Time reached = now_ + takes + flight;
    downlink = std::max(downlink, reached - once) + once;
    transfer.last_arrival = std::max(transfer.last_arrival, downlink);
    push(now_ + takes, Event::Kind::kChunkSent, w, {}, id);
  }

  void chunk_sent(std::uint32_t w, std::size_t id) {
    workers_[w].sending = false;
    const Transfer& transfer = transfers_[id];
    if (transfer.bytes_left == 0) push(transfer.last_arrival, Event::Kind::kArrived, transfer.to, {}, id);
    start_uplink(w);
  }

  void arrived(std::size_t id) {
    const Transfer& transfer = transfers_[id];
    StageSchedule& schedule = workers_[transfer.to].schedule;
    if (transfer.gradient)
      schedule.gradient_ready(transfer.microbatch);
    else
      schedule.forward_ready(transfer.microbatch, transfer.microbatch.value < training_);
    start_next(transfer.to);
  }

  // Replicas of a stage report that they are done, hear that all are, then exchange parts and totals.
  Duration combination() const {
    Duration longest{};
    for (const auto& stage : in_.plan.stages) {
      if (stage.replicas < 2) continue;
      const double bytes = static_cast<double>(stage.parameters) * (stage.replicas - 1) / stage.replicas * (in_.plan.part_width + in_.plan.total_width);
      longest = std::max(longest, 4 * in_.link.latency + seconds(bytes * kSegmentShare * 8 / in_.link.bits_per_second));
    }
    return longest;
  }

  double uniform() { return static_cast<double>(random_.bits(drawn_++) >> 11) * 0x1.0p-53; }

  const StepSimulationInput& in_;
  const std::uint32_t training_;
  const std::uint32_t all_;
  const CounterRandom random_;
  std::uint64_t drawn_ = 0;
  std::uint64_t orders_ = 0;
  Time now_{};
  std::priority_queue<Event, std::vector<Event>, Later> events_;
  std::vector<Worker> workers_;
  std::vector<std::uint32_t> first_;                // worker of each stage; one more at the end
  std::vector<std::vector<std::uint32_t>> holder_;  // by stage and microbatch
  std::vector<Transfer> transfers_;
  StepSimulation out_;
};

}  // namespace

StepSimulation simulate_step(const StepSimulationInput& input) { return Simulation(input).run(); }

}  // namespace isthmus
