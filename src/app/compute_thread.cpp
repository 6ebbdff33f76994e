#include "app/compute_thread.h"

#include <exception>
#include <ranges>
#include <utility>

#include "app/clock.h"
#include "base/digest.h"
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

ComputeThread::ComputeThread(const RunConfig& run, const Plan& plan, Options options, std::function<void()> wake)
    : run_(run), plan_(plan), options_(std::move(options)), wake_(std::move(wake)), thread_([this] { work(); }) {}

ComputeThread::~ComputeThread() { join(); }

void ComputeThread::join() {
  jobs_.close();
  results_.close();
  if (thread_.joinable()) thread_.join();
  finish_writing();
}

void ComputeThread::put(ComputeResult result) {
  results_.push(std::move(result));
  wake_();
}

void ComputeThread::work() {
  try {
    auto ready = start();
    if (!ready) return put({{}, ready.error().message, time_});
    put({*ready, {}, time_});
    while (auto job = jobs_.pop()) {
      if (auto result = run(*job)) put(std::move(*result));
      if (!warning_.empty()) put({Warned{std::exchange(warning_, {})}, {}, time_});
    }
  } catch (const std::exception& error) {
    put({{}, fmt::format("computation failed: {}", error.what()), time_});
  }
}

// A disk that is slower than the checkpoints are frequent holds up training; without that, copies would pile up.
void ComputeThread::save(const RunSave& job) {
  finish_writing();
  writing_ = std::thread([this, job, write = stage_->save(job.version, job.timeline)] {
    Status saved;
    try {
      saved = write();
    } catch (const std::exception& error) {
      saved = fail("cannot write the checkpoint of step {}: {}", job.version, error.what());
    }
    put({SaveDone{job.version, job.timeline, saved ? "" : saved.error().message}, {}});
  });
}

void ComputeThread::finish_writing() {
  if (writing_.joinable()) writing_.join();
}

Result<StageReady> ComputeThread::start() {
  auto made = options_.make();
  if (!made) return tl::unexpected(made.error());
  stage_ = std::move(*made);
  auto journal = Journal::open(options_.journal_folder, run_.recovery.journal_mb << 20);
  if (journal)
    journal_.emplace(std::move(*journal));
  else
    warning_ = journal.error().message;
  auto ready = load_newest();
  if (ready) ready->device = stage_->measure();
  return ready;
}

Result<StageReady> ComputeThread::load_newest() {
  StageReady ready;
  for (std::size_t i = 0; i < options_.versions.size(); ++i) {
    ready.version = options_.versions[i];
    if (ready.version == 0) return ready;
    const auto timeline = stage_->load(ready.version);
    if (timeline) {
      ready.timeline = *timeline;
      return ready;
    }
    if (i + 1 == options_.versions.size()) return tl::unexpected(timeline.error());
    warning_ = timeline.error().message;
  }
  return ready;
}

void ComputeThread::warn(const Status& status) {
  if (!status) warning_ = status.error().message;
}

void ComputeThread::write_journal(const JobTag& tag, MicrobatchId m, bool gradient, const EncodedTensor& tensor) {
  if (journal_) warn(journal_->append({tag.step, tag.attempt, m, gradient}, tensor));
}

LoadDone ComputeThread::load(const RunLoad& job) {
  finish_writing();
  forget_checkpoints(options_.checkpoints, job.version, job.timeline);
  // Where it is damaged, or was not written, there is less to repeat from an older one than from the beginning.
  auto versions = checkpoint_versions(options_.checkpoints.folder, options_.checkpoints.stage);
  std::erase_if(versions, [&](std::uint64_t version) { return version > job.version; });
  stage_->drop_step();
  for (const auto version : std::views::reverse(versions)) {
    const auto loaded = stage_->load(version);
    if (loaded) return {version, ""};
    warning_ = loaded.error().message;
  }
  stage_.reset();
  auto made = options_.make();
  if (!made) return {0, made.error().message};
  stage_ = std::move(*made);
  return {0, ""};
}

OperationDone ComputeThread::operate(const RunOperation& job) {
  StageCompute& stage = *stage_;
  const bool is_tail = options_.checkpoints.stage == plan_.last_stage();
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
        if (job.training && !is_tail) write_journal(job.tag, m, false, done.tensor);
      }
      break;
    }
    case Operation::kInputGradient: {
      auto gradient = stage.input_gradient(m, job.tensor);
      if (!gradient) {
        done.error = gradient.error().message;
        break;
      }
      done.tensor = std::move(*gradient);
      if (options_.checkpoints.stage != StageId(0)) write_journal(job.tag, m, true, done.tensor);
      break;
    }
    case Operation::kWeightGradient:
      stage.weight_gradient(m);
      break;
  }
  return done;
}

std::optional<ComputeResult> ComputeThread::run(ComputeJob& job) {
  using Answer = std::optional<ComputeResult>;
  StageCompute& stage = *stage_;
  const Time start = monotonic_now();
  const auto spent = [&](std::uint64_t& counter, const char* lane, std::string name) {
    const Time end = monotonic_now();
    counter += static_cast<std::uint64_t>((end - start).count());
    if (options_.trace) trace_.span(lane, std::move(name), start, end);
  };
  const auto answer = [this](auto result) -> Answer { return ComputeResult{std::move(result), {}, time_}; };
  const auto synced = [&] {
    if (journal_) warn(journal_->sync());
  };
  return std::visit(
      Overloaded{
          [&](const RunOperation& j) -> Answer {
            auto done = operate(j);
            done.took = monotonic_now() - start;
            const auto operation = j.task.operation;
            spent(operation == Operation::kForward         ? time_.forward_ns
                  : operation == Operation::kInputGradient ? time_.input_gradient_ns
                                                           : time_.weight_gradient_ns,
                  lane_of(operation),
                  fmt::format("{}{} step {}", j.training ? "" : "evaluation ", j.task.microbatch, j.tag.step));
            return answer(std::move(done));
          },
          [&](const RunClose& j) -> Answer {
            synced();
            auto sum = stage.close();
            return answer(CloseDone{j.tag, j.epoch, std::move(sum.bytes), sum.finite});
          },
          [&](const RunAdd& j) -> Answer {
            auto total = stage.add(j.parts);
            spent(time_.optimizer_ns, "weight gradient", fmt::format("add parts step {}", j.tag.step));
            return answer(AddDone{j.tag, j.epoch, std::move(total)});
          },
          [&](const RunPrepare& j) -> Answer {
            if (j.totals.empty()) synced();
            auto prepared = stage.prepare(j.totals, j.finite);
            if (stage.outer()) prepared.sum_digest = j.sync ? stage.outer()->digest() : "";
            spent(time_.optimizer_ns, "weight gradient", fmt::format("prepare step {}", j.tag.step));
            return answer(PrepareDone{j.tag, j.epoch, std::move(prepared.norms), prepared.finite,
                                      std::move(prepared.sum_digest), j.keep_total ? stage.total() : nullptr});
          },
          [&](const RunApply& j) -> Answer {
            if (j.sync) stage.settle_sync();
            stage.apply(j.commit, learning_rate(run_, j.commit.step));
            spent(time_.optimizer_ns, "weight gradient", fmt::format("optimizer step {}", j.commit.step));
            return std::nullopt;
          },
          [&](const RunFollow& j) -> Answer {
            if (j.sync) {
              stage.drop_step();
              const Status taken = stage.outer()->take_all(j.commit.step.value - 1, j.total);
              if (taken) stage.settle_sync();
              return answer(LoadDone{j.commit.step.value, taken ? "" : taken.error().message});
            }
            (void)stage.prepare({j.total}, true);
            stage.apply(j.commit, learning_rate(run_, j.commit.step));
            return std::nullopt;
          },
          [&](const RunDropStep&) -> Answer {
            stage.drop_step();
            return std::nullopt;
          },
          [&](const RunSave& j) -> Answer {
            save(j);
            return std::nullopt;
          },
          [&](const RunUpdate& j) -> Answer {
            UpdateDone done{j.version, stage.updates(j.version)};
            spent(time_.optimizer_ns, "weight gradient", fmt::format("update of version {}", j.version));
            return answer(std::move(done));
          },
          [&](const RunAgree& j) -> Answer {
            auto agreement = stage.outer()->agree(j.version, j.slice, j.updates);
            spent(time_.optimizer_ns, "weight gradient", fmt::format("agree on version {}", j.version));
            return answer(AgreeDone{j.version, j.slice, j.number, std::move(agreement.bytes), std::move(agreement.digest), std::move(agreement.offences), ""});
          },
          [&](const RunTake& j) -> Answer {
            auto taken = stage.outer()->take(j.version, j.slice, j.agreement);
            AgreeDone done{j.version, j.slice, j.number, j.agreement, "", {}, taken ? "" : taken.error().message};
            if (taken) done.digest = std::move(taken->digest);
            return answer(std::move(done));
          },
          [&](const RunDigests&) -> Answer { return answer(DigestsDone{stage.weight_digests()}); },
          [&](const RunLoad& j) -> Answer { return answer(load(j)); },
          [&](const RunRestore& j) -> Answer {
            const Status restored = stage.restore(*j.state);
            return answer(LoadDone{j.version, restored ? "" : restored.error().message});
          },
          [&](const RunSnapshot& j) -> Answer {
            auto state = stage.state();
            std::string digest = digest_hex(*state);
            return answer(SnapshotDone{j.version, std::move(state), std::move(digest)});
          },
          [&](const RunRecall& j) -> Answer {
            RecallDone done{j.asker, j.piece, false, {}};
            if (journal_)
              if (auto tensor = journal_->find({StepId(j.piece.version), j.piece.attempt, MicrobatchId(j.piece.index),
                                                j.piece.kind == PieceKind::kGradient})) {
                done.found = true;
                done.tensor = std::move(*tensor);
              }
            return answer(std::move(done));
          },
          [&](const RunTrim& j) -> Answer {
            if (journal_) journal_->trim(j.version);
            return std::nullopt;
          }},
      job);
}

}  // namespace isthmus
