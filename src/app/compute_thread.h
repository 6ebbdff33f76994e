#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "app/trace.h"
#include "base/bounded_queue.h"
#include "base/result.h"
#include "config/run_config.h"
#include "router/effects.h"
#include "scheduler/plan.h"
#include "stage/checkpoint.h"
#include "stage/journal.h"
#include "stage/stage_compute.h"

namespace isthmus {

// Jobs of a worker, in the order in which they were given out.
using ComputeJob = std::variant<RunOperation, RunClose, RunAdd, RunPrepare, RunApply, RunDropStep, RunSave, RunDigests,
                                RunLoad, RunRestore, RunSnapshot, RunFollow, RunRecall, RunTrim, RunUpdate, RunAgree, RunTake>;

// How long the device worked on what.
struct ComputeTime {
  std::uint64_t forward_ns = 0;
  std::uint64_t input_gradient_ns = 0;
  std::uint64_t weight_gradient_ns = 0;
  std::uint64_t optimizer_ns = 0;
};

// The stage is made; the weights are those of this version.
struct StageReady {
  std::uint64_t version = 0;
  std::uint32_t timeline = 0;
  DeviceFigures device;
};

struct ComputeResult {
  std::variant<StageReady, OperationDone, CloseDone, AddDone, PrepareDone, SaveDone, DigestsDone, LoadDone, SnapshotDone,
               RecallDone, UpdateDone, AgreeDone, Warned> value;
  std::string error;  // the stage could not be made or loaded, or cannot go on
  std::optional<ComputeTime> time = std::nullopt;  // since the start; a written checkpoint does not know it
};

// The worker's second thread: makes the stage, loads the starting weights, then works jobs off one after the other. A
// checkpoint, once copied, is written by a third one, at most one at a time; the journal's files have one of their own
// (base/disk_sync.h), which ends with this object. Exceptions of libtorch end here and become
// errors. Spans go to a Trace that may be read after join().
class ComputeThread {
 public:
  using MakeStage = std::function<Result<std::unique_ptr<StageCompute>>()>;
  struct Options {
    MakeStage make;
    // Versions to start from, tried in order; the last one that cannot be loaded is an error. 0: initial weights.
    std::vector<std::uint64_t> versions = {0};
    CheckpointPlace checkpoints;
    std::string journal_folder;
    bool trace = false;
  };

  // `wake` is called after every result, from either thread.
  ComputeThread(const RunConfig& run, const Plan& plan, Options options, std::function<void()> wake);
  ~ComputeThread();

  void give(ComputeJob job) { jobs_.push(std::move(job)); }
  std::optional<ComputeResult> try_take() { return results_.try_pop(); }
  // Lets the threads finish what they are at and ends them, but for the journal's.
  void join();
  const Trace& trace() const { return trace_; }

 private:
  void work();
  Result<StageReady> start();
  Result<StageReady> load_newest();
  std::optional<ComputeResult> run(ComputeJob& job);
  void put(ComputeResult result);
  OperationDone operate(const RunOperation& job);
  void save(const RunSave& job);
  void finish_writing();
  LoadDone load(const RunLoad& job);
  void write_journal(const JobTag& tag, MicrobatchId m, bool gradient, const EncodedTensor& tensor);
  void warn(const Status& status);

  const RunConfig run_;
  const Plan plan_;
  const Options options_;
  const std::function<void()> wake_;
  BoundedQueue<ComputeJob> jobs_{64};
  BoundedQueue<ComputeResult> results_{64};
  std::unique_ptr<StageCompute> stage_;
  std::optional<Journal> journal_;
  std::string warning_;  // to be told
  ComputeTime time_;
  Trace trace_;
  std::thread writing_;  // of the newest checkpoint; the compute thread's
  std::thread thread_;
};

}  // namespace isthmus
