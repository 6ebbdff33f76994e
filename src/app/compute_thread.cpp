#include "app/compute_thread.h"

#include <exception>
#include <utility>

#include "process/clock.h"
#include "spec/learning_rate.h"
#include "store/disk_journal.h"

namespace isthmus::app {

namespace {

// What the trace and the counters know of a job.
struct Noted {
  const char* lane;
  std::string name;
  std::uint64_t ComputeTime::*counter;
};

Noted noted(const protocol::RunOperation& job) {
  const std::string name =
      fmt::format("{}{} step {}", job.training ? "" : "evaluation ", job.task.microbatch, job.tag.step);
  switch (job.task.operation) {
    case protocol::Operation::kForward:
      return {"forward", name, &ComputeTime::forward_ns};
    case protocol::Operation::kInputGradient:
      return {"input gradient", name, &ComputeTime::input_gradient_ns};
    case protocol::Operation::kWeightGradient:
      break;
  }
  return {"weight gradient", name, &ComputeTime::weight_gradient_ns};
}
Noted of_the_step(std::string name) { return {"weight gradient", std::move(name), &ComputeTime::optimizer_ns}; }
Noted noted(const protocol::RunAdd& job) { return of_the_step(fmt::format("add parts step {}", job.tag.step)); }
Noted noted(const protocol::RunPrepare& job) { return of_the_step(fmt::format("prepare step {}", job.tag.step)); }
Noted noted(const protocol::RunApply& job) { return of_the_step(fmt::format("optimizer step {}", job.commit.step)); }
Noted noted(const protocol::RunUpdate& job) { return of_the_step(fmt::format("update of version {}", job.version)); }
Noted noted(const protocol::RunAgree& job) { return of_the_step(fmt::format("agree on version {}", job.version)); }
template <class Job>
Noted noted(const Job&) {
  return {nullptr, {}, nullptr};
}

}  // namespace

ComputeThread::ComputeThread(const spec::RunConfig& run, const protocol::Plan& plan, Options options,
                             std::function<void()> wake)
    : run_(run), plan_(plan), options_(std::move(options)), wake_(std::move(wake)), thread_([this] { work(); }) {}

ComputeThread::~ComputeThread() { join(); }

void ComputeThread::join() {
  jobs_.close();
  results_.close();
  if (thread_.joinable()) thread_.join();
  options_.checkpoints->wait();
}

void ComputeThread::put(ComputeResult result) {
  results_.push(std::move(result));
  wake_();
}

Status ComputeThread::open_journal() {
  auto journal = store::DiskJournal::open(options_.journal_folder, run_.host.journal_mb << 20);
  if (!journal) return tl::unexpected(journal.error());
  journal_ = std::make_unique<store::DiskJournal>(std::move(*journal));
  return {};
}

void ComputeThread::work() {
  try {
    const Status opened = open_journal();
    runner::JobRunner::Options options;
    options.stage = options_.stage;
    options.make = options_.make;
    options.learning_rate = [this](StepId step) { return spec::learning_rate(run_, step); };
    options.saved = [this](protocol::SaveDone done) { put({std::move(done), {}}); };
    runner_ =
        std::make_unique<runner::JobRunner>(plan_, std::move(options), journal_.get(), options_.checkpoints.get());
    const auto warn = [this] {
      if (auto warning = runner_->take_warning(); !warning.empty())
        put({protocol::Warned{std::move(warning)}, {}, time_});
    };
    auto ready = runner_->start(options_.versions);
    if (!ready) return put({{}, ready.error().message, time_});
    put({*ready, {}, time_});
    if (!opened) put({protocol::Warned{opened.error().message}, {}, time_});
    warn();
    while (auto job = jobs_.pop()) {
      if (auto result = run(*job)) put(std::move(*result));
      warn();
    }
  } catch (const std::bad_alloc&) {
    put({{}, "not enough memory for the stage; `isthmus plan` says how much it needs", time_});
  } catch (const std::exception& error) {
    put({{}, fmt::format("computation failed: {}", error.what()), time_});
  }
}

std::optional<ComputeResult> ComputeThread::run(const runner::Job& job) {
  const Time start = process::monotonic_now();
  auto answer = runner_->run(job);
  const Time end = process::monotonic_now();
  note(job, start, end);
  if (!answer) return ComputeResult{{}, answer.error().message, time_};
  if (!*answer) return std::nullopt;
  if (auto* done = std::get_if<protocol::OperationDone>(&**answer)) done->took = end - start;
  return std::visit([this](auto& result) { return ComputeResult{std::move(result), {}, time_}; }, **answer);
}

void ComputeThread::note(const runner::Job& job, Time start, Time end) {
  Noted what = std::visit([](const auto& j) { return noted(j); }, job);
  if (!what.lane) return;
  time_.*what.counter += static_cast<std::uint64_t>((end - start).count());
  if (options_.trace) trace_.span(what.lane, std::move(what.name), start, end);
}

}  // namespace isthmus::app
