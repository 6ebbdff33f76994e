#include "app/compute_thread.h"

#include <exception>
#include <utility>

#include "app/clock.h"
#include "scheduler/learning_rate.h"

namespace isthmus {

namespace {

template <class... Lambdas>
struct Overloaded : Lambdas... {
  using Lambdas::operator()...;
};

const char* lane_of(Operation operation) {
  switch (operation) {
    case Operation::kForward:
      return "forward";
    case Operation::kInputGradient:
      return "input gradient";
    case Operation::kWeightGradient:
      return "weight gradient";
  }
  return "";
}

}  // namespace

ComputeThread::ComputeThread(const RunConfig& run, const Plan& plan, MakeStage make,
                             std::uint64_t version, bool trace, std::function<void()> wake)
    : run_(run),
      plan_(plan),
      make_(std::move(make)),
      version_(version),
      tracing_(trace),
      wake_(std::move(wake)),
      thread_([this] { work(); }) {}

ComputeThread::~ComputeThread() { join(); }

void ComputeThread::join() {
  jobs_.close();
  results_.close();
  if (thread_.joinable()) thread_.join();
}

void ComputeThread::work() {
  const auto put = [&](ComputeResult result) {
    result.time = time_;
    results_.push(std::move(result));
    wake_();
  };
  std::unique_ptr<StageCompute> stage;
  try {
    auto made = make_();
    if (!made) return put({{}, made.error().message});
    stage = std::move(*made);
    if (version_ > 0)
      if (auto loaded = stage->load(version_); !loaded) return put({{}, loaded.error().message});
    put({});
    while (auto job = jobs_.pop())
      if (auto result = run(*stage, *job)) put(std::move(*result));
  } catch (const std::exception& error) {
    put({{}, fmt::format("computation failed: {}", error.what())});
  }
}

OperationDone ComputeThread::operate(StageCompute& stage, const RunOperation& job) {
  OperationDone done{job.tag, job.task, {}, {}, {}};
  const MicrobatchId m = job.task.microbatch;
  switch (job.task.operation) {
    case Operation::kForward: {
      // Evaluation microbatches follow the training ones of the step; the stage counts them from 0.
      const MicrobatchId index = job.training ? m : MicrobatchId(m.value - plan_.training_count(job.tag.step));
      auto forward = stage.forward(job.tag.step, index, job.training, job.tensor);
      if (!forward) {
        done.error = forward.error().message;
      } else {
        done.tensor = std::move(forward->output);
        if (forward->loss) {
          forward->loss->microbatch = m;
          done.loss.push_back(*forward->loss);
        }
      }
      break;
    }
    case Operation::kInputGradient: {
      auto gradient = stage.input_gradient(m, job.tensor);
      if (gradient)
        done.tensor = std::move(*gradient);
      else
        done.error = gradient.error().message;
      break;
    }
    case Operation::kWeightGradient:
      stage.weight_gradient(m);
      break;
  }
  return done;
}

std::optional<ComputeResult> ComputeThread::run(StageCompute& stage, ComputeJob& job) {
  const Time start = monotonic_now();
  const auto spent = [&](std::uint64_t& counter, const char* lane, std::string name) {
    const Time end = monotonic_now();
    counter += static_cast<std::uint64_t>((end - start).count());
    if (tracing_) trace_.span(lane, std::move(name), start, end);
  };
  return std::visit(
      Overloaded{
          [&](const RunOperation& j) -> std::optional<ComputeResult> {
            auto done = operate(stage, j);
            const auto operation = j.task.operation;
            spent(operation == Operation::kForward         ? time_.forward_ns
                  : operation == Operation::kInputGradient ? time_.input_gradient_ns
                                                           : time_.weight_gradient_ns,
                  lane_of(operation),
                  fmt::format("{}{} step {}", j.training ? "" : "evaluation ", j.task.microbatch, j.tag.step));
            return ComputeResult{std::move(done), {}, {}};
          },
          [&](const RunPrepare& j) -> std::optional<ComputeResult> {
            auto prepared = stage.prepare();
            spent(time_.optimizer_ns, "weight gradient", fmt::format("prepare step {}", j.tag.step));
            return ComputeResult{PrepareDone{j.tag, j.epoch, std::move(prepared.norms), prepared.finite,
                                             std::move(prepared.sum_digest)}, {}, {}};
          },
          [&](const RunApply& j) -> std::optional<ComputeResult> {
            stage.apply(j.commit, learning_rate(run_, j.commit.step));
            spent(time_.optimizer_ns, "weight gradient", fmt::format("optimizer step {}", j.commit.step));
            return std::nullopt;
          },
          [&](const RunDropStep&) -> std::optional<ComputeResult> {
            stage.drop_step();
            return std::nullopt;
          },
          [&](const RunSave& j) -> std::optional<ComputeResult> {
            const Status saved = stage.save(j.version);
            return ComputeResult{SaveDone{j.version, saved ? "" : saved.error().message}, {}, {}};
          },
          [&](const RunDigests&) -> std::optional<ComputeResult> {
            return ComputeResult{DigestsDone{stage.weight_digests()}, {}, {}};
          }},
      job);
}

}  // namespace isthmus
