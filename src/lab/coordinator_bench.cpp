#include "lab/coordinator_bench.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <utility>
#include <vector>

#include "base/counter_random.h"
#include "process/clock.h"
#include "scheduler/coordinator/coordinator.h"
#include "wire/frame.h"
#include "wire/message_codec.h"

namespace isthmus::lab {

namespace {

constexpr Duration kSlot = std::chrono::milliseconds(10);
constexpr Duration kHeartbeat = std::chrono::milliseconds(250);
constexpr Duration kCoalesce = std::chrono::milliseconds(100);
constexpr Duration kRoundTrip = std::chrono::milliseconds(80);
constexpr Duration kCombine = std::chrono::milliseconds(300);
constexpr double kFirstDone = .1, kLastDone = .9;  // of a step

protocol::Plan plan_of(const CoordinatorBenchOptions& options) {
  protocol::Plan plan;
  for (std::uint32_t s = 0; s < options.stages; ++s) {
    protocol::StagePlan& stage = plan.stages.emplace_back(protocol::StagePlan{2 * s, 2 * s + 2, 0, 8});
    stage.replicas = options.workers / options.stages + (s < options.workers % options.stages ? 1 : 0);
  }
  plan.steps = 1'000'000;
  plan.microbatches = options.microbatches;
  plan.tokens_per_microbatch = 4096;
  plan.skip_after = seconds(20);
  plan.skip_steps = 20;
  return plan;
}

// What a worker has to know to say what a real one would.
struct Worker {
  coordinator::Seat seat;
  SessionId session;
  protocol::Endpoints endpoints;
  double offset = 0;  // of its moments in a step, 0 … 1
  EpochId epoch;
  StepId step;
  std::uint32_t attempt = 0;
  DoneSet done;
  std::uint32_t finished = 0;  // microbatches
  Time started{};
  Time last_report{};
  bool changed = true;
  Time prepare_due = kNever;
  EpochId prepared_epoch;
  bool up = true;
};

// A View on its way.
struct News {
  Time due;
  PeerId peer;
  EpochId epoch;
  StepId step;
  std::uint32_t attempt = 0;
  bool preparing = false;
};

class CoordinatorBench {
 public:
  explicit CoordinatorBench(const CoordinatorBenchOptions& options)
      : options_(options),
        plan_(plan_of(options)),
        limits_(wire::Limits::of(plan_)),
        workers_(workers()),
        coordinator_(plan_, {}) {}

  CoordinatorFigures measure() {
    begin();
    while (committed_ == 0) slot();
    costs_ = {};
    const Time from = committed_at_;
    while (committed_ < 1 + options_.steps) slot();
    const double steps = options_.steps;
    CoordinatorFigures figures;
    figures.step_seconds = to_seconds(committed_at_ - from) / steps;
    figures.logic_ms = to_seconds(costs_.logic) * 1e3 / steps;
    figures.decode_ms = to_seconds(costs_.decode) * 1e3 / steps;
    figures.encode_ms = to_seconds(costs_.encode) * 1e3 / steps;
    figures.reports = costs_.reports / steps;
    figures.report_bytes = costs_.report_bytes / steps;
    figures.views = costs_.views / steps;
    figures.view_bytes = costs_.view_bytes / steps;
    figures.report_us = to_seconds(costs_.quiet) * 1e6 / std::max(1.0, costs_.quiet_reports);
    figures.quiet_view_bytes = costs_.repeated_bytes / std::max(1.0, costs_.repeated);

    Worker& one = workers_[workers_.size() / 2];
    figures.expulsion = change([&] {
      one.up = false;
      return coordinator_.process_ended(one.seat.peer, now_);
    });
    one.session = SessionId(one.session.value + workers_.size());
    figures.admission = change([&] {
      one.up = true;
      one.epoch = {};
      one.step = coordinator_.decisions().step;
      one.done = DoneSet(plan_.count(one.step));
      one.finished = 0;
      auto effects = coordinator_.connected(one.seat.peer, now_);
      auto more = coordinator_.received(one.seat.peer, report_of(one), now_);
      std::ranges::move(more, std::back_inserter(effects));
      return effects;
    });
    return figures;
  }

 private:
  struct Costs {
    Duration logic{}, decode{}, encode{}, quiet{};
    double reports = 0, report_bytes = 0, quiet_reports = 0, views = 0, view_bytes = 0, repeated = 0,
           repeated_bytes = 0;
  };

  std::vector<Worker> workers() const {
    const CounterRandom random(1, "coordinator bench");
    std::vector<Worker> workers;
    for (std::uint32_t s = 0; s < plan_.stages.size(); ++s)
      for (std::uint32_t r = 0; r < plan_.stages[s].replicas; ++r) {
        Worker& worker = workers.emplace_back();
        const auto n = static_cast<std::uint32_t>(workers.size());
        worker.seat = {PeerId(n), StageId(s), ReplicaId(r), {}};
        for (std::uint32_t i = 0; i < worker.seat.key.size(); ++i)
          worker.seat.key[i] = static_cast<std::uint8_t>(random.bits(1000 + n) >> (i % 8 * 8));
        worker.session = SessionId(random.bits(n) | 1u << 20);
        worker.endpoints = {fmt::format("tcp://203.0.{}.{}:40001", n / 250, n % 250),
                            fmt::format("tcp://203.0.{}.{}:40002", n / 250, n % 250)};
        worker.offset = static_cast<double>(random.bits(100'000'000 + n) >> 11) * 0x1.0p-53;
      }
    return workers;
  }
  Worker& worker_of(PeerId peer) { return workers_[peer.value - 1]; }

  // As after a restart of the coordinator: everybody is in the log.
  void begin() {
    std::vector<coordinator::LogRecord> log{coordinator::InitRecord{0}};
    for (const auto& w : workers_) {
      log.push_back(coordinator::EnrolRecord{w.seat.peer, w.seat.key, w.seat.key, "", {}});
      log.push_back(coordinator::SeatRecord{w.seat.peer, w.seat.stage, w.seat.replica});
      log.push_back(
          coordinator::AdmitRecord{{w.seat.peer, w.session, w.seat.stage, w.seat.replica, w.seat.key, w.endpoints}, 0});
    }
    coordinator_.replay(log);
    for (auto& worker : workers_) {
      worker.step = coordinator_.decisions().step;
      worker.attempt = coordinator_.decisions().attempt;
      worker.epoch = coordinator_.decisions().epoch;
      worker.done = DoneSet(plan_.count(worker.step));
      worker.started = now_;
      worker.last_report = now_ - kHeartbeat + seconds(.25 * worker.offset);
      carry_out(coordinator_.connected(worker.seat.peer, now_));
    }
  }

  // What becomes of a worker by `now_`; whether it reports.
  bool advance(Worker& worker) {
    const protocol::StagePlan& stage = plan_.stages[worker.seat.stage.value];
    const std::uint32_t count = worker.done.count();
    const std::uint32_t share = count / stage.replicas + (worker.seat.replica.value < count % stage.replicas ? 1 : 0);
    const auto due = [&](std::uint32_t i) {
      const double part = kFirstDone + (kLastDone - kFirstDone) * (i + worker.offset) / std::max(1u, share);
      return worker.started + seconds(options_.step_seconds * part);
    };
    while (worker.finished < share && now_ >= due(worker.finished)) {
      worker.done.insert(MicrobatchId(worker.seat.replica.value + worker.finished++ * stage.replicas));
      worker.changed = true;
      if (stage.replicas == 1 && worker.finished == share) worker.prepare_due = now_;
    }
    if (now_ >= worker.prepare_due) {
      worker.prepare_due = kNever;
      worker.prepared_epoch = worker.epoch;
      worker.last_report = {};
      worker.changed = true;
    }
    return now_ - worker.last_report >= (worker.changed ? kCoalesce : kHeartbeat);
  }

  void read(const News& news) {
    Worker& worker = worker_of(news.peer);
    if (news.epoch < worker.epoch) return;
    if (news.step != worker.step || news.attempt != worker.attempt) {
      worker.step = news.step;
      worker.attempt = news.attempt;
      worker.done = DoneSet(plan_.count(news.step));
      worker.finished = 0;
      worker.started = now_;
      worker.changed = true;
    }
    const bool alone = plan_.stages[worker.seat.stage.value].replicas == 1;
    if (news.epoch != worker.epoch) {
      worker.prepared_epoch = {};
      worker.prepare_due = alone && worker.finished == worker.done.count() ? now_ : kNever;
    }
    worker.epoch = news.epoch;
    if (news.preparing && !alone && worker.prepare_due == kNever && worker.prepared_epoch == EpochId(0))
      worker.prepare_due = now_ + kCombine;
  }

  protocol::Report report_of(const Worker& worker) const {
    const std::uint32_t layer = 2 * worker.seat.stage.value;
    protocol::Report report;
    report.session = worker.session;
    report.stage = worker.seat.stage;
    report.replica = worker.seat.replica;
    report.endpoints = worker.endpoints;
    report.version = worker.step.value - 1;
    report.step = worker.step;
    report.attempt = worker.attempt;
    report.epoch = worker.epoch;
    report.done = worker.done;
    if (worker.prepared_epoch != EpochId(0)) {
      report.prepared_epoch = worker.prepared_epoch;
      report.norms = {{fmt::format("layer.{}", layer), 1.25e-3}, {fmt::format("layer.{}", layer + 1), 2.5e-3}};
      report.sum_digest = fmt::format("{:016x}", layer);
    }
    if (worker.seat.stage == plan_.last_stage())
      for (std::uint32_t i = 0; i < worker.finished; ++i)
        report.losses.push_back(
            {MicrobatchId(worker.seat.replica.value + i * plan_.stages.back().replicas), 12'345.678, 4096});
    const std::uint64_t ns = static_cast<std::uint64_t>(now_.count());
    report.stats = {ns,        ns,
                    ns,        ns / 50,
                    ns / 500,  ns / 500,
                    ns / 1000, ns / 1000,
                    ns / 9000, ns / 9000,
                    0,         400'000,
                    3,         fmt::format("activations from stage {}", worker.seat.stage)};
    return report;
  }

  void slot() {
    now_ += kSlot;
    for (; !news_.empty() && news_.front().due <= now_; news_.pop_front()) read(news_.front());
    std::vector<std::pair<PeerId, Bytes>> arrived;
    for (auto& worker : workers_) {
      if (!worker.up || !advance(worker)) continue;
      arrived.emplace_back(worker.seat.peer, wire::encode_body(report_of(worker)));
      worker.last_report = now_;
      worker.changed = false;
    }

    const Duration first = process::processor_time();
    std::vector<std::pair<PeerId, protocol::Report>> reports;
    for (const auto& [peer, body] : arrived) {
      costs_.report_bytes += static_cast<double>(wire::kFrameHeaderBytes + body.size());
      auto decoded = wire::decode_body(1, body, limits_);
      if (!decoded) spdlog::error("the coordinator refuses a report: {}", decoded.error().message);
      if (decoded) reports.emplace_back(peer, std::move(std::get<protocol::Report>(decoded->message)));
    }
    costs_.reports += static_cast<double>(arrived.size());
    const Duration decoded = process::processor_time();
    std::vector<coordinator::CoordinatorEffect> effects;
    for (const auto& [peer, report] : reports) {
      auto more = coordinator_.received(peer, report, now_);
      std::ranges::move(more, std::back_inserter(effects));
    }
    const Duration heard = process::processor_time();
    costs_.decode += decoded - first;
    costs_.logic += heard - decoded;
    if (effects.empty()) {
      costs_.quiet += heard - decoded;
      costs_.quiet_reports += static_cast<double>(reports.size());
    }
    carry_out(std::move(effects));
    if (now_ < coordinator_.next_due()) return;
    const EpochId before = coordinator_.decisions().epoch;
    const Costs costs = costs_;
    const Duration start = process::processor_time();
    effects = coordinator_.tick(now_);
    costs_.logic += process::processor_time() - start;
    carry_out(std::move(effects));
    if (coordinator_.decisions().epoch != before) return;
    costs_.repeated += costs_.views - costs.views;
    costs_.repeated_bytes += costs_.view_bytes - costs.view_bytes;
  }

  void carry_out(std::vector<coordinator::CoordinatorEffect> effects) {
    const Duration start = process::processor_time();
    double round = 0;
    for (auto& effect : effects) {
      if (std::holds_alternative<coordinator::StepCommitted>(effect)) {
        ++committed_;
        committed_at_ = now_;
      }
      auto* send = std::get_if<coordinator::SendView>(&effect);
      if (!send) continue;
      const protocol::View& view = send->view;
      news_.push_back({now_ + kRoundTrip, send->peer, view.epoch, view.step, view.attempt, view.preparing});
      const protocol::Message message(std::move(send->view));
      costs_.view_bytes += static_cast<double>(wire::kFrameHeaderBytes + wire::encode_body(message).size());
      ++round;
    }
    costs_.views += round;
    costs_.encode += process::processor_time() - start;
    if (round > static_cast<double>(workers_.size() / 2)) round_at_ = now_;
  }

  // From a moment between two repetitions of the state.
  template <class Event>
  CoordinatorFigures::Change change(const Event& event) {
    while (now_ < committed_at_ + seconds(.3 * options_.step_seconds) ||
           now_ - round_at_ != std::chrono::milliseconds(300))
      slot();
    // Reports that change nothing would have come anyway.
    const auto all = [&] { return costs_.logic + costs_.encode - costs_.quiet; };
    const Duration before = all();
    const double bytes = costs_.view_bytes;
    const Duration start = process::processor_time();
    auto effects = event();
    costs_.logic += process::processor_time() - start;
    carry_out(std::move(effects));
    for (const Time until = now_ + std::chrono::milliseconds(500); now_ < until;) slot();
    return {to_seconds(all() - before) * 1e3, costs_.view_bytes - bytes};
  }

  const CoordinatorBenchOptions options_;
  const protocol::Plan plan_;
  const wire::Limits limits_;
  std::vector<Worker> workers_;
  coordinator::Coordinator coordinator_;
  Time now_ = seconds(100);
  std::deque<News> news_;
  Costs costs_;
  std::uint32_t committed_ = 0;
  Time committed_at_{};
  Time round_at_{};
};

}  // namespace

CoordinatorFigures measure_coordinator(const CoordinatorBenchOptions& options) {
  return CoordinatorBench(options).measure();
}

}  // namespace isthmus::lab
