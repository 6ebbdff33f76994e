#include "scheduler/planner/step_simulation.h"

#include <algorithm>
#include <array>
#include <deque>
#include <limits>
#include <queue>
#include <unordered_map>

#include "base/counter_random.h"
#include "protocol/step_paths.h"

namespace isthmus::planner {

namespace {

constexpr std::uint64_t kChunkBytes = 64 * 1024;
// What headers and CURVE add, as transport/shaped_transport.cpp counts it.
constexpr double kChunkOverhead = 82;

// A tensor on its way from one worker to another.
struct Transfer {
  std::uint32_t from;
  std::uint32_t to;
  MicrobatchId microbatch;
  bool gradient;
  std::uint64_t bytes_left;
  Time queued;
  Time last_arrival{};
};

struct Event {
  Time time;
  std::uint64_t order;  // of creation: equal times keep it
  enum class Kind { kOperationDone, kChunkSent, kArrived } kind;
  std::uint32_t worker;
  protocol::Task task{};
  std::size_t transfer = 0;
};
struct Later {
  bool operator()(const Event& a, const Event& b) const {
    return std::pair(a.time, a.order) > std::pair(b.time, b.order);
  }
};

struct Worker {
  protocol::StageSchedule schedule;
  bool busy = false;
  bool sending = false;
  std::uint32_t held = 0;                         // training microbatches between the start of F and the end of W
  std::array<std::deque<std::size_t>, 2> uplink;  // 0: gradients, 1: activations
  Time downlink_free{};
  std::uint64_t bytes_queued = 0;
  Duration owed{};  // work it was given and has not done
  Time idle_since{};
};

// Of a step that neither evaluates nor takes the full path because of its number.
protocol::StepPaths ordinary_paths(protocol::Plan plan) {
  plan.steps = 1;
  return {plan, StepId(1), {}};
}

class Simulation {
 public:
  explicit Simulation(const StepSimulationInput& input)
      : in_(input),
        training_(input.plan.microbatches),
        all_(training_ + input.evaluation_microbatches),
        random_(input.link.seed, "step simulation"),
        paths_(ordinary_paths(input.plan)) {
    for (std::uint32_t s = 0; s < input.plan.stages.size(); ++s) {
      const auto& stage = input.plan.stages[s];
      first_.push_back(static_cast<std::uint32_t>(workers_.size()));
      for (std::uint32_t r = 0; r < stage.replicas; ++r) {
        workers_.push_back({protocol::StageSchedule(input.plan.schedule, stage.credits)});
        out_.workers.push_back({StageId(s), ReplicaId(r)});
      }
    }
    first_.push_back(static_cast<std::uint32_t>(workers_.size()));
    for (std::uint32_t w = 0; w < workers_.size(); ++w) {
      pace_.push_back(pace(w));
      total_.push_back(scaled(w, in_.costs[w].total()));
    }
    holder_.resize(input.plan.stages.size(), std::vector<std::uint32_t>(all_));
    if (input.path_width > 0) out_.paths.resize(all_, MicrobatchPath(input.plan.stages.size()));
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
    out_.combination = combination();
    out_.step = now_ + out_.combination + 2 * in_.link.latency + in_.commit;
    Duration most{};
    for (std::size_t w = 0; w < workers_.size(); ++w) {
      out_.workers[w].waited_end = out_.step - workers_[w].idle_since;
      most = std::max(most, out_.workers[w].busy);
    }
    for (const auto& [pair, bytes] : used_)
      out_.links.push_back({static_cast<std::uint32_t>(pair >> 32), static_cast<std::uint32_t>(pair), bytes});
    std::ranges::sort(out_.links, {}, [](const LinkUse& use) { return std::pair(use.from, use.to); });
    out_.efficiency = to_seconds(most) / to_seconds(out_.step);
    return std::move(out_);
  }

 private:
  void push(Time time, Event::Kind kind, std::uint32_t worker, protocol::Task task, std::size_t transfer) {
    events_.push({time, ++orders_, kind, worker, task, transfer});
  }

  std::uint32_t stage_of(std::uint32_t w) const { return out_.workers[w].stage.value; }

  double up(std::uint32_t w) const { return in_.rates.empty() ? in_.link.bits_per_second : in_.rates[w].up; }
  double down(std::uint32_t w) const { return in_.rates.empty() ? in_.link.bits_per_second : in_.rates[w].down; }
  Duration latency(std::uint32_t a, std::uint32_t b) const {
    return in_.sites.empty() ? in_.link.latency : in_.pairs.at(in_.sites[a], in_.sites[b]).latency;
  }
  double pair_rate(std::uint32_t a, std::uint32_t b) const {
    return in_.sites.empty() ? std::numeric_limits<double>::infinity()
                             : in_.pairs.at(in_.sites[a], in_.sites[b]).bits_per_second;
  }
  static std::uint64_t pair(std::uint32_t from, std::uint32_t to) { return std::uint64_t{from} << 32 | to; }

  // A worker whose connection takes longer over a microbatch than its device is dealt work by its connection.
  double pace(std::uint32_t w) const {
    if (in_.rates.empty()) return 1;
    const double forward = wire_bits(static_cast<double>(in_.plan.token_bytes + in_.plan.forward_bytes)),
                 backward = wire_bits(static_cast<double>(in_.plan.backward_bytes));
    const double next = stage_of(w) + 1 < in_.plan.stages.size() ? 1 : 0, before = stage_of(w) > 0 ? 1 : 0;
    const double device = to_seconds(in_.costs[w].total());
    const double line =
        std::max((next * forward + before * backward) / up(w), (before * forward + next * backward) / down(w));
    return device > 0 ? std::max(1.0, line / device) : 1;
  }
  Duration scaled(std::uint32_t w, Duration on_device) const {
    return pace_[w] == 1 ? on_device : seconds(to_seconds(on_device) * pace_[w]);
  }

  // As the coordinator does it: the next one goes to the head that is furthest behind its share.
  void deal_heads() {
    for (std::uint32_t m = 0; m < all_; ++m) {
      const auto behind = [&](std::uint32_t w) { return (out_.workers[w].microbatches + 1) * to_seconds(total_[w]); };
      const std::uint32_t head = choose(
          0, MicrobatchId(m), [&](std::uint32_t w, double) { return behind(w); }, behind);
      give(head, MicrobatchId(m));
      workers_[head].schedule.forward_ready(MicrobatchId(m), m < training_);
    }
  }

  // The replica of a stage with the least value; the path remembers it and the next best. `least` says quickly what a
  // value cannot be below, as closely as it takes to see that it is not wanted: of a hundred replicas most need no
  // closer look.
  template <class Least, class Value>
  std::uint32_t choose(std::uint32_t stage, MicrobatchId m, const Least& least, const Value& value) {
    const std::size_t width = std::max<std::size_t>(in_.path_width, 1);
    ranked_.clear();  // ascending
    for (std::uint32_t w = first_[stage]; w < first_[stage + 1]; ++w) {
      if (ranked_.size() == width && to_double(least(w, ranked_.back().first)) >= ranked_.back().first) continue;
      const std::pair entry(to_double(value(w)), w);
      ranked_.insert(std::ranges::lower_bound(ranked_, entry), entry);
      if (ranked_.size() > width) ranked_.pop_back();
    }
    for (std::size_t i = 0; in_.path_width > 0 && i < ranked_.size(); ++i)
      out_.paths[m.value][stage].push_back(ranked_[i].second);
    return ranked_.front().second;
  }
  static double to_double(double value) { return value; }
  static double to_double(Time value) { return static_cast<double>(value.count()); }

  void give(std::uint32_t w, MicrobatchId m) {
    const protocol::OperationCosts& costs = in_.costs[w];
    holder_[stage_of(w)][m.value] = w;
    ++out_.workers[w].microbatches;
    workers_[w].owed += m.value < training_ ? total_[w] : scaled(w, costs.forward);
  }

  // The replica of the next stage that would be done with it first.
  // Evaluation takes the full path.
  std::uint32_t next_stage(std::uint32_t stage, MicrobatchId m) const {
    return m.value < training_ ? paths_.next(m, StageId(stage)).value : stage + 1;
  }
  std::uint32_t previous_stage(std::uint32_t stage, MicrobatchId m) const {
    return m.value < training_ ? paths_.previous(m, StageId(stage)).value : stage - 1;
  }

  std::uint32_t next_hop(std::uint32_t w, MicrobatchId m, std::uint64_t bytes) {
    const double queued = static_cast<double>(workers_[w].bytes_queued + bytes);
    const double bits = wire_bits(queued);
    const auto arrives = [&](std::uint32_t hop) {
      return now_ + latency(w, hop) + seconds(bits / std::min({up(w), pair_rate(w, hop), down(hop)}));
    };
    // Both leave out whom else the pair's own line is busy with, which is long to look up.
    const auto least = [&](std::uint32_t hop, double limit) {
      const Time done = now_ + workers_[hop].owed + total_[hop];
      return to_double(done) >= limit ? done : std::max(done, arrives(hop) + total_[hop]);
    };
    return choose(next_stage(stage_of(w), m), m, least, [&](std::uint32_t hop) {
      Time here = arrives(hop);
      if (const auto queue = pair_free_.find(pair(w, hop)); queue != pair_free_.end())
        here = std::max(
            here, queue->second + latency(w, hop) + seconds(wire_bits(static_cast<double>(bytes)) / pair_rate(w, hop)));
      return std::max(here, now_ + workers_[hop].owed) + total_[hop];
    });
  }

  void start_next(std::uint32_t w) {
    Worker& worker = workers_[w];
    WorkerSimulation& out = out_.workers[w];
    if (worker.busy) return;
    const auto task = worker.schedule.next();
    out.in_flight_max = std::max(out.in_flight_max, worker.schedule.in_flight());
    if (!task) return;
    if (task->operation == protocol::Operation::kForward && task->microbatch.value < training_)
      out.held_max = std::max(out.held_max, ++worker.held);
    worker.busy = true;
    const Duration takes = time_of(w, task->operation);
    out.busy += takes;
    out_.spans.push_back({w, *task, now_, now_ + takes});
    push(now_ + takes, Event::Kind::kOperationDone, w, *task, 0);
  }

  Duration time_of(std::uint32_t w, protocol::Operation operation) const {
    const protocol::OperationCosts& costs = in_.costs[w];
    return operation == protocol::Operation::kForward         ? costs.forward
           : operation == protocol::Operation::kInputGradient ? costs.input_gradient
                                                              : costs.weight_gradient;
  }

  void operation_done(std::uint32_t w, protocol::Task task) {
    Worker& worker = workers_[w];
    worker.busy = false;
    worker.idle_since = now_;
    worker.owed -= scaled(w, time_of(w, task.operation));
    const std::uint32_t stage = stage_of(w);
    const bool training = task.microbatch.value < training_;
    if (task.operation == protocol::Operation::kForward) {
      if (stage + 1 == in_.plan.stages.size()) {
        if (training) worker.schedule.gradient_ready(task.microbatch);
      } else {
        const std::uint64_t bytes = in_.plan.token_bytes + in_.plan.forward_bytes;
        const std::uint32_t hop = next_hop(w, task.microbatch, bytes);
        give(hop, task.microbatch);
        send(w, hop, task.microbatch, false, bytes);
      }
    } else if (task.operation == protocol::Operation::kInputGradient) {
      worker.schedule.input_gradient_done(task.microbatch);
      if (stage > 0)
        send(w, holder_[previous_stage(stage, task.microbatch)][task.microbatch.value], task.microbatch, true,
             in_.plan.backward_bytes);
    } else {
      --worker.held;
    }
    start_next(w);
  }

  void send(std::uint32_t from, std::uint32_t to, MicrobatchId m, bool gradient, std::uint64_t bytes) {
    bytes = std::max<std::uint64_t>(bytes, 1);
    transfers_.push_back({from, to, m, gradient, bytes, now_});
    used_[pair(from, to)] += bytes;
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
    const double bits = wire_bits(static_cast<double>(chunk) + kChunkOverhead);
    Duration takes = seconds(bits / up(w));
    Duration again{};
    const Duration once = takes;
    while (in_.link.loss > 0 && uniform() < in_.link.loss) {
      takes += once;
      again += 2 * latency(w, transfer.to);
    }
    out_.workers[w].bytes_up += chunk;
    out_.workers[w].uplink_busy += takes;
    // A busy line holds the chunk back; an idle one has been receiving it all along.
    const auto pass = [&](Time& free, Time reached, Duration before, Duration on_it) {
      return free = std::max(reached, std::max(free, reached - before) + on_it);
    };
    Time sent = now_ + takes;
    Duration pace = once;
    if (const double own = pair_rate(w, transfer.to); own < std::numeric_limits<double>::infinity()) {
      const Duration on_pair = seconds(bits / own);
      sent = pass(pair_free_[pair(w, transfer.to)], sent, once, on_pair);
      pace = std::max(pace, on_pair);
    }
    Duration flight = latency(w, transfer.to) + again;
    if (in_.link.jitter > Duration{}) flight += seconds(uniform() * to_seconds(in_.link.jitter));
    const Time downlink =
        pass(workers_[transfer.to].downlink_free, sent + flight, pace, seconds(bits / down(transfer.to)));
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
    protocol::StageSchedule& schedule = workers_[transfer.to].schedule;
    if (transfer.gradient)
      schedule.gradient_ready(transfer.microbatch);
    else
      schedule.forward_ready(transfer.microbatch, transfer.microbatch.value < training_);
    // Only an arrival ends a wait.
    const bool waited = !workers_[transfer.to].busy;
    start_next(transfer.to);
    if (!waited || !workers_[transfer.to].busy) return;
    WorkerSimulation& out = out_.workers[transfer.to];
    const Duration wait = now_ - workers_[transfer.to].idle_since, on_link = std::min(wait, now_ - transfer.queued);
    out.waited_link += on_link;
    (transfer.gradient ? out.waited_gradient : out.waited_forward) += wait - on_link;
  }

  // Replicas of a stage report that they are done, hear that all are, then exchange parts and totals; the slowest line
  // among them sets the pace. Those that step on their own tell each other nothing that holds up a step.
  Duration combination() const {
    Duration longest{};
    for (std::uint32_t s = 0; s < in_.plan.stages.size(); ++s) {
      const auto& stage = in_.plan.stages[s];
      if (stage.replicas < 2 || stage.local) continue;
      const double others = stage.replicas - 1;
      const double bytes = static_cast<double>(stage.parameters) * others / stage.replicas *
                           (in_.plan.part_width + in_.plan.total_width);
      double rate = std::numeric_limits<double>::infinity();
      Duration away{};
      std::vector<std::uint32_t> places;  // a worker of each site
      for (std::uint32_t w = first_[s]; w < first_[s + 1]; ++w) {
        rate = std::min({rate, up(w), down(w)});
        for (const std::uint32_t other : places) {
          away = std::max(away, latency(w, other));
          rate = std::min(rate, others * pair_rate(w, other));
        }
        const auto same_place = [&](std::uint32_t other) {
          return in_.sites.empty() || in_.sites[other] == in_.sites[w];
        };
        if (std::ranges::none_of(places, same_place)) places.push_back(w);
      }
      longest = std::max(longest, 4 * away + seconds(wire_bits(bytes) / rate));
    }
    return longest;
  }

  double uniform() { return static_cast<double>(random_.bits(drawn_++) >> 11) * 0x1.0p-53; }

  const StepSimulationInput& in_;
  const std::uint32_t training_;
  const std::uint32_t all_;
  const CounterRandom random_;
  const protocol::StepPaths paths_;  // of an ordinary step
  std::uint64_t drawn_ = 0;
  std::uint64_t orders_ = 0;
  Time now_{};
  std::priority_queue<Event, std::vector<Event>, Later> events_;
  std::vector<Worker> workers_;
  std::vector<double> pace_;                        // by worker
  std::vector<Duration> total_;                     // by worker: what a microbatch takes, at its pace
  std::vector<std::uint32_t> first_;                // worker of each stage; one more at the end
  std::vector<std::vector<std::uint32_t>> holder_;  // by stage and microbatch
  std::vector<Transfer> transfers_;
  std::unordered_map<std::uint64_t, std::uint64_t> used_;  // bytes by pair
  std::unordered_map<std::uint64_t, Time> pair_free_;      // by pair, of those that have a rate of their own
  std::vector<std::pair<double, std::uint32_t>> ranked_;
  StepSimulation out_;
};

}  // namespace

LinkCosts link_costs(const spec::RunSpec::Link& link) {
  return {link.bandwidth_mbps * 1e6, seconds(link.latency_ms * 1e-3), seconds(link.jitter_ms * 1e-3), link.loss};
}

StepSimulation simulate_step(const StepSimulationInput& input) { return Simulation(input).run(); }

}  // namespace isthmus::planner
