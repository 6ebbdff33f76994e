#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "base/bounded_queue.h"
#include "base/result.h"
#include "protocol/effects.h"
#include "protocol/plan.h"
#include "record/trace.h"
#include "runner/job_runner.h"
#include "spec/run_config.h"
#include "store/checkpoint_store.h"
#include "store/journal.h"

namespace isthmus::app {

// How long the device worked on what.
struct ComputeTime {
  std::uint64_t forward_ns = 0;
  std::uint64_t input_gradient_ns = 0;
  std::uint64_t weight_gradient_ns = 0;
  std::uint64_t optimizer_ns = 0;
};

struct ComputeResult {
  std::variant<runner::StageReady, protocol::OperationDone, protocol::CloseDone, protocol::AddDone,
               protocol::PrepareDone, protocol::SaveDone, protocol::DigestsDone, protocol::LoadDone,
               protocol::SnapshotDone, protocol::RecallDone, protocol::UpdateDone, protocol::AgreeDone,
               protocol::Warned>
      value;
  std::string error;                               // the stage could not be made or loaded, or cannot go on
  std::optional<ComputeTime> time = std::nullopt;  // since the start; a written checkpoint does not know it
};

// The worker's second thread: makes the stage, loads the starting weights, then works jobs off one after the other
// (runner/job_runner.h). The store writes checkpoints, and the journal its files, on threads of their own. Exceptions
// of libtorch end here and become errors. Spans go to a Trace that may be read after join().
class ComputeThread {
 public:
  struct Options {
    StageId stage;
    std::function<Result<std::unique_ptr<runner::StageCompute>>()> make;
    // Versions to start from, tried in order; the last one that cannot be loaded is an error. 0: initial weights.
    std::vector<std::uint64_t> versions = {0};
    std::unique_ptr<store::CheckpointStore> checkpoints;
    std::string journal_folder;
    bool trace = false;
  };

  // `wake` is called after every result, from whatever thread it comes.
  ComputeThread(const spec::RunConfig& run, const protocol::Plan& plan, Options options, std::function<void()> wake);
  ~ComputeThread();

  void give(runner::Job job) { jobs_.push(std::move(job)); }
  std::optional<ComputeResult> try_take() { return results_.try_pop(); }
  // Lets the threads finish what they are at and ends them, but for the journal's.
  void join();
  const record::Trace& trace() const { return trace_; }

 private:
  void work();
  Status open_journal();
  void put(ComputeResult result);
  std::optional<ComputeResult> run(const runner::Job& job);
  void note(const runner::Job& job, Time start, Time end);

  const spec::RunConfig run_;
  const protocol::Plan plan_;
  const Options options_;
  const std::function<void()> wake_;
  BoundedQueue<runner::Job> jobs_{64};
  // Never full: whoever takes the results may at this moment wait for room among the jobs.
  BoundedQueue<ComputeResult> results_{SIZE_MAX};
  std::unique_ptr<store::Journal> journal_;
  std::unique_ptr<runner::JobRunner> runner_;
  ComputeTime time_;
  record::Trace trace_;
  std::thread thread_;
};

}  // namespace isthmus::app
