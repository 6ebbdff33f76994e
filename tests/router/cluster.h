#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "base/counter_random.h"
#include "router/worker_steps.h"
#include "scheduler/coordinator.h"

namespace isthmus {

// The real coordinator and worker state machines in one thread, on a manual clock. A message may take any time, be
// lost, or come twice. In place of arithmetic every (step, microbatch) is a unique number that travels through all
// stages, and every worker's sum over a step is compared with what it has to be: a lost or doubled microbatch shows.
class Cluster {
 public:
  struct Faults {
    double loss = 0;
    double duplicate = 0;
    Duration delay_max = std::chrono::milliseconds(20);
  };

  Cluster(const Plan& plan, std::uint64_t seed, Faults faults) : plan_(plan), faults_(faults), random_(seed, "cluster"), coordinator_(plan, seats(plan), {}) {
    for (std::uint32_t s = 0; s < plan.stages.size(); ++s) start_worker(s);
    carry_out(coordinator_.begin(0, now_));
  }

  // Runs until the run has ended or `limit` of simulated time has passed.
  void run(Duration limit) {
    const Time until = now_ + limit;
    while (!ended_ && now_ < until) turn();
  }
  void stop_faults() { faults_ = {0, 0, std::chrono::milliseconds(20)}; }

  // The process dies; another starts with weights of the newest committed version, as a sibling would give it.
  void restart_worker(std::uint32_t stage) {
    const std::uint64_t version = commits_.size();
    const auto sums = workers_[stage].applied;
    ++lives_;
    start_worker(stage, version);
    workers_[stage].applied = sums;
    carry_out(coordinator_.connected(PeerId(stage + 1), now_));
  }
  // Hears and says nothing for a while, then goes on as if nothing had happened.
  void freeze_worker(std::uint32_t stage, Duration time) { workers_[stage].frozen_until = now_ + time; }
  // The coordinator's process is killed and started again from its log.
  void restart_coordinator() {
    coordinator_ = Coordinator(plan_, seats(plan_), {});
    coordinator_.replay(log_);
    for (std::uint32_t s = 0; s < workers_.size(); ++s) carry_out(coordinator_.connected(PeerId(s + 1), now_));
  }

  bool finished() const { return ended_ && ended_->finished; }
  std::uint64_t committed() const { return commits_.size(); }
  const std::vector<std::string>& violations() const { return violations_; }
  Time now() const { return now_; }
  std::uint64_t draw(std::uint64_t limit) { return random_.below(limit, drawn_++); }

 private:
  struct Worker {
    std::unique_ptr<WorkerSteps> steps;
    std::uint64_t life = 0;
    std::map<MicrobatchId, std::uint64_t> held;  // what F kept
    std::map<MicrobatchId, std::uint64_t> sum;   // the accumulator
    std::map<std::uint64_t, bool> applied;       // step -> its sum was right
    std::uint64_t version = 0;
    Time frozen_until{};
  };
  struct InFlight {
    PeerId from;
    PeerId to;
    std::uint64_t life;  // of the receiver, for job results
    std::optional<Message> message;
    std::optional<JobResult> result;
  };

  static std::vector<Seat> seats(const Plan& plan) {
    std::vector<Seat> seats;
    for (std::uint32_t s = 0; s < plan.stages.size(); ++s) seats.push_back({PeerId(s + 1), StageId(s), ReplicaId(0), {}});
    return seats;
  }
  bool chance(double p) { return p > 0 && double(draw(1'000'000)) < p * 1e6; }

  void start_worker(std::uint32_t stage, std::uint64_t version = 0) {
    if (workers_.size() <= stage) workers_.resize(stage + 1);
    Worker& w = workers_[stage];
    w.life = ++lives_;
    w.held.clear();
    w.sum.clear();
    w.version = version;
    w.steps = std::make_unique<WorkerSteps>(plan_, WorkerSteps::Identity{PeerId(stage + 1), StageId(stage), ReplicaId(0), {}, seconds(2)}, version, lives_ * 7919 + 13);
    carry_out(stage, w.steps->peer_connected(kCoordinator, now_));
  }

  void turn() {
    now_ += std::chrono::milliseconds(5);
    while (!queue_.empty() && queue_.begin()->first <= now_) {
      auto node = queue_.extract(queue_.begin());
      deliver(std::move(node.mapped()));
    }
    for (std::uint32_t s = 0; s < workers_.size(); ++s) {
      auto& w = workers_[s];
      if (now_ >= w.frozen_until && now_ >= w.steps->next_due()) carry_out(s, w.steps->tick(now_));
    }
    if (now_ >= coordinator_.next_due()) carry_out(coordinator_.tick(now_));
    for (const std::uint32_t s : std::exchange(behind_, {})) restart_worker(s);
  }

  void deliver(InFlight f) {
    if (f.to == kCoordinator) {
      carry_out(coordinator_.received(f.from, std::get<Report>(*f.message), now_));
      return;
    }
    const std::uint32_t s = f.to.value - 1;
    Worker& w = workers_[s];
    if (f.result) {
      if (f.life == w.life) carry_out(s, w.steps->job_done(std::move(*f.result), now_));
      return;
    }
    if (now_ < w.frozen_until) {
      queue_.emplace(w.frozen_until + std::chrono::milliseconds(1), std::move(f));
      return;
    }
    if (const auto* view = std::get_if<View>(&*f.message))
      carry_out(s, w.steps->view_received(*view, now_));
    else
      carry_out(s, w.steps->message_received(f.from, std::move(*f.message), now_));
  }

  void post(PeerId from, PeerId to, const Message& message) {
    const int copies = chance(faults_.loss) ? 0 : chance(faults_.duplicate) ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
      const Duration delay(draw(static_cast<std::uint64_t>(faults_.delay_max.count())) + 1);
      queue_.emplace(now_ + delay, InFlight{from, to, 0, message, {}});
    }
  }

  // --------------------------------------------------------------------------------- the coordinator's process
  void carry_out(std::vector<CoordinatorEffect> effects) {
    for (auto& effect : effects) {
      if (auto* append = std::get_if<AppendRecord>(&effect)) log_.push_back(append->record);
      if (auto* send = std::get_if<SendView>(&effect)) post(kCoordinator, send->peer, send->view);
      if (auto* step = std::get_if<StepCommitted>(&effect))
        if (!commits_.insert(step->outcome.commit.step).second) violations_.push_back("a step was committed twice");
      if (auto* end = std::get_if<RunEnded>(&effect)) ended_ = *end;
// A sole replica that died between its report and the commit it reported for is a step behind when it returns:
      // give the newcomer the newest weights.
      if (auto* event = std::get_if<Happened>(&effect); event && event->event == "refused") behind_.insert(event->peer.value - 1);
    }
  }

  // -------------------------------------------------------------------------------------- a worker's process
  static std::uint64_t number_of(StepId step, MicrobatchId m) { return step.value * 1'000'003 + m.value * 7 + 1; }
  static EncodedTensor encode(std::uint64_t number) {
    Bytes bytes(8);
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<std::uint8_t>(number >> (8 * i));
    return {share(bytes), nullptr};
  }
  static std::uint64_t decode(const EncodedTensor& tensor) {
    std::uint64_t number = 0;
    if (!tensor.values || tensor.values->size() != 8) return 0;
    for (int i = 0; i < 8; ++i) number |= std::uint64_t{(*tensor.values)[i]} << (8 * i);
    return number;
  }

  void finish_job(std::uint32_t s, JobResult result) {
    queue_.emplace(now_ + std::chrono::milliseconds(1 + draw(20)), InFlight{PeerId(s + 1), PeerId(s + 1), workers_[s].life, {}, std::move(result)});
  }

  void carry_out(std::uint32_t s, std::vector<WorkerEffect> effects) {
    Worker& w = workers_[s];
    for (auto& effect : effects) {
      if (auto* send = std::get_if<SendMessage>(&effect)) {
        post(PeerId(s + 1), send->peer, send->message);
      } else if (auto* run = std::get_if<RunOperation>(&effect)) {
        operate(s, w, *run);
      } else if (auto* prepare = std::get_if<RunPrepare>(&effect)) {
        finish_job(s, PrepareDone{prepare->tag, prepare->epoch, {}, true, ""});
      } else if (auto* apply = std::get_if<RunApply>(&effect)) {
        check_sum(s, w, apply->commit);
      } else if (std::holds_alternative<RunDropStep>(effect)) {
        w.held.clear();
        w.sum.clear();
      } else if (auto* save = std::get_if<RunSave>(&effect)) {
        finish_job(s, SaveDone{save->version, ""});
      } else if (std::holds_alternative<RunDigests>(effect)) {
        finish_job(s, DigestsDone{{}});
      }
    }
  }

  void operate(std::uint32_t s, Worker& w, const RunOperation& run) {
    const MicrobatchId m = run.task.microbatch;
    OperationDone done{run.tag, run.task, {}, {}, {}};
    const bool tail = s + 1 == workers_.size();
    switch (run.task.operation) {
      case Operation::kForward: {
        const std::uint64_t number = s == 0 ? number_of(run.tag.step, m) : decode(run.tensor);
        if (number != number_of(run.tag.step, m)) violations_.push_back("a microbatch came under another's name");
        if (run.training) w.held[m] = number;
        if (!tail) done.tensor = encode(number);
        if (tail) done.loss.push_back({m, double(number), 1});
        break;
      }
      case Operation::kInputGradient:
        if (!tail && decode(run.tensor) != w.held[m]) violations_.push_back("a gradient came under another's name");
        if (s > 0) done.tensor = encode(w.held[m]);
        break;
      case Operation::kWeightGradient:
        if (!w.sum.emplace(m, w.held[m]).second) violations_.push_back("a microbatch was added twice to one sum");
        break;
    }
    finish_job(s, done);
  }

  void check_sum(std::uint32_t s, Worker& w, const Commit& commit) {
    std::uint64_t expected = 0, sum = 0;
    for (std::uint32_t m = 0; m < plan_.training_count(commit.step); ++m) expected += number_of(commit.step, MicrobatchId(m));
    for (const auto& [m, number] : w.sum) sum += number;
    if (sum != expected) violations_.push_back(fmt::format("stage {} applied a wrong sum at step {}", s, commit.step));
    if (!w.applied.emplace(commit.step.value, true).second) violations_.push_back(fmt::format("stage {} applied step {} twice", s, commit.step));
    if (commit.step.value != w.version + 1) violations_.push_back(fmt::format("stage {} jumped from version {} to {}", s, w.version, commit.step));
    w.version = commit.step.value;
    w.held.clear();
    w.sum.clear();
  }

  const Plan plan_;
  Faults faults_;
  const CounterRandom random_;
  std::uint64_t drawn_ = 0;
  std::uint64_t lives_ = 0;
  Time now_ = seconds(50);
  std::multimap<Time, InFlight> queue_;
  std::vector<Worker> workers_;
  Coordinator coordinator_;
  std::vector<LogRecord> log_;
  std::set<StepId> commits_;
  std::set<std::uint32_t> behind_;
  std::vector<std::string> violations_;
  std::optional<RunEnded> ended_;
};

}  // namespace isthmus
