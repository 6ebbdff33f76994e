#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <variant>

#include "app/trace.h"
#include "base/bounded_queue.h"
#include "base/result.h"
#include "config/run_config.h"
#include "router/effects.h"
#include "scheduler/plan.h"
#include "stage/stage_compute.h"

namespace isthmus {

// Jobs of a worker, in the order in which they were given out.
using ComputeJob = std::variant<RunOperation, RunPrepare, RunApply, RunDropStep, RunSave, RunDigests>;

// How long the device worked on what.
struct ComputeTime {
  std::uint64_t forward_ns = 0;
  std::uint64_t input_gradient_ns = 0;
  std::uint64_t weight_gradient_ns = 0;
  std::uint64_t optimizer_ns = 0;
};

struct ComputeResult {
  // Nothing: the stage is ready (first result), or could not be made or loaded (error).
  std::variant<std::monostate, OperationDone, PrepareDone, SaveDone, DigestsDone> value;
  std::string error;
  ComputeTime time;  // since the start
};

// The worker's second thread: makes the stage, loads the starting weights, then works jobs off one after the other.
// Exceptions of libtorch end here and become errors. Spans go to a Trace that may be read after join().
class ComputeThread {
 public:
  using MakeStage = std::function<Result<std::unique_ptr<StageCompute>>()>;

  // `wake` is called after every result, from the compute thread.
  ComputeThread(const RunConfig& run, const Plan& plan, MakeStage make, std::uint64_t version,
                bool trace, std::function<void()> wake);
  ~ComputeThread();

  void give(ComputeJob job) { jobs_.push(std::move(job)); }
  std::optional<ComputeResult> try_take() { return results_.try_pop(); }
  // Lets the thread finish the job it is at and ends it.
  void join();
  const Trace& trace() const { return trace_; }

 private:
  void work();
  std::optional<ComputeResult> run(StageCompute& stage, ComputeJob& job);
  OperationDone operate(StageCompute& stage, const RunOperation& job);

  const RunConfig run_;
  const Plan plan_;
  const MakeStage make_;
  const std::uint64_t version_;
  const bool tracing_;
  const std::function<void()> wake_;
  BoundedQueue<ComputeJob> jobs_{64};
  BoundedQueue<ComputeResult> results_{64};
  ComputeTime time_;
  Trace trace_;
  std::thread thread_;
};

}  // namespace isthmus
