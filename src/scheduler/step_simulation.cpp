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

// A tensor on its way from one stage to a neighbour.
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
  std::uint32_t stage;
  Task task{};
  std::size_t transfer = 0;
};
struct Later {
  bool operator()(const Event& a, const Event& b) const { return std::pair(a.time, a.order) > std::pair(b.time, b.order); }
};

struct Stage {
  StageSchedule schedule;
  bool busy = false;
  bool uplink_busy = false;
  std::array<std::deque<std::size_t>, 2> uplink;  // 0: gradients, 1: activations
};

class Simulation {
 public:
  explicit Simulation(const StepSimulationInput& input)
      : in_(input), training_(input.plan.microbatches), all_(training_ + input.evaluation_microbatches), random_(input.link.seed, "step simulation") {
    const std::size_t stages = input.plan.stages.size();
    for (const auto& stage : input.plan.stages) {
      stages_.push_back({StageSchedule(input.plan.schedule, stage.credits), false, false, {}});
    }
    downlink_free_.resize(stages);
    out_.busy.resize(stages);
    out_.in_flight_max.resize(stages);
    out_.bytes_up.resize(stages);
    out_.uplink_busy.resize(stages);
  }

  StepSimulation run() {
    for (std::uint32_t m = 0; m < all_; ++m) stages_[0].schedule.forward_ready(MicrobatchId(m), m < training_);
    start_next(0);
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.time;
      if (event.kind == Event::Kind::kOperationDone) operation_done(event.stage, event.task);
      if (event.kind == Event::Kind::kChunkSent) chunk_sent(event.stage, event.transfer);
      if (event.kind == Event::Kind::kArrived) arrived(event.transfer);
    }
    // The last report goes to the coordinator, its commit comes back.
    out_.step = now_ + 2 * in_.link.latency + in_.commit;
    const Duration most = *std::ranges::max_element(out_.busy);
    out_.efficiency = to_seconds(most) / to_seconds(out_.step);
    return std::move(out_);
  }

 private:
  void push(Time time, Event::Kind kind, std::uint32_t stage, Task task, std::size_t transfer) {
    events_.push({time, ++orders_, kind, stage, task, transfer});
  }

  void start_next(std::uint32_t s) {
    Stage& stage = stages_[s];
    if (stage.busy) return;
    const auto task = stage.schedule.next();
    out_.in_flight_max[s] = std::max(out_.in_flight_max[s], stage.schedule.in_flight());
    if (!task) return;
    stage.busy = true;
    const auto& costs = in_.costs[s];
    const Duration takes = task->operation == Operation::kForward         ? costs.forward
                           : task->operation == Operation::kInputGradient ? costs.input_gradient
                                                                          : costs.weight_gradient;
    out_.busy[s] += takes;
    out_.spans.push_back({StageId(s), *task, now_, now_ + takes});
    push(now_ + takes, Event::Kind::kOperationDone, s, *task, 0);
  }

  void operation_done(std::uint32_t s, Task task) {
    Stage& stage = stages_[s];
    stage.busy = false;
    const std::uint32_t last = static_cast<std::uint32_t>(stages_.size()) - 1;
    const bool training = task.microbatch.value < training_;
    if (task.operation == Operation::kForward) {
      if (s == last) {
        if (training) stage.schedule.gradient_ready(task.microbatch);
      } else {
        send(s, s + 1, task.microbatch, false, in_.plan.token_bytes + in_.plan.forward_bytes);
      }
    } else if (task.operation == Operation::kInputGradient) {
      stage.schedule.input_gradient_done(task.microbatch);
      if (s > 0) send(s, s - 1, task.microbatch, true, in_.plan.backward_bytes);
    }
    start_next(s);
  }

  void send(std::uint32_t from, std::uint32_t to, MicrobatchId m, bool gradient, std::uint64_t bytes) {
    transfers_.push_back({from, to, m, gradient, std::max<std::uint64_t>(bytes, 1)});
    stages_[from].uplink[gradient ? 0 : 1].push_back(transfers_.size() - 1);
    start_uplink(from);
  }

  void start_uplink(std::uint32_t s) {
    Stage& stage = stages_[s];
    if (stage.uplink_busy) return;
    auto queue = std::ranges::find_if(stage.uplink, [](const auto& q) { return !q.empty(); });
    if (queue == stage.uplink.end()) return;
    stage.uplink_busy = true;
    const std::size_t id = queue->front();
    Transfer& transfer = transfers_[id];
    const std::uint64_t chunk = std::min(kChunkBytes, transfer.bytes_left);
    transfer.bytes_left -= chunk;
    if (transfer.bytes_left == 0) queue->pop_front();
    Duration takes = seconds((static_cast<double>(chunk) + kChunkOverhead) * kSegmentShare * 8 / in_.link.bits_per_second);
    Duration again{};
    const Duration once = takes;
    while (in_.link.loss > 0 && uniform() < in_.link.loss) {
      takes += once;
      again += 2 * in_.link.latency;
    }
    out_.bytes_up[s] += chunk;
    out_.uplink_busy[s] += takes;
    // A busy downlink holds the chunk back; an idle one has been receiving it all along.
    Duration flight = in_.link.latency + again;
    if (in_.link.jitter > Duration{}) flight += seconds(uniform() * to_seconds(in_.link.jitter));
    Time& downlink = downlink_free_[transfer.to];
    const Time reached = now_ + takes + flight;
    downlink = std::max(downlink, reached - once) + once;
    transfer.last_arrival = std::max(transfer.last_arrival, downlink);
    push(now_ + takes, Event::Kind::kChunkSent, s, {}, id);
  }

  void chunk_sent(std::uint32_t s, std::size_t id) {
    stages_[s].uplink_busy = false;
    const Transfer& transfer = transfers_[id];
    if (transfer.bytes_left == 0) push(transfer.last_arrival, Event::Kind::kArrived, transfer.to, {}, id);
    start_uplink(s);
  }

  void arrived(std::size_t id) {
    const Transfer& transfer = transfers_[id];
    StageSchedule& schedule = stages_[transfer.to].schedule;
    if (transfer.gradient)
      schedule.gradient_ready(transfer.microbatch);
    else
      schedule.forward_ready(transfer.microbatch, transfer.microbatch.value < training_);
    start_next(transfer.to);
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
  std::vector<Stage> stages_;
  std::vector<Transfer> transfers_;
  std::vector<Time> downlink_free_;
  StepSimulation out_;
};

}  // namespace

StepSimulation simulate_step(const StepSimulationInput& input) { return Simulation(input).run(); }

}  // namespace isthmus
