#include "runner/job_runner.h"

#include <algorithm>
#include <ranges>
#include <utility>

#include "base/digest.h"

namespace isthmus::runner {

namespace {

// Whether what came over the boundary, or from the coordinator, is what its sender sealed; otherwise `done` says so.
bool is_whole(const protocol::RunOperation& job, protocol::OperationDone& done) {
  const Status whole = compress::check_seal(job.tensor);
  if (!whole)
    done.error = fmt::format("microbatch {} of step {}: {}; its sender's memory or disk may be at fault",
                             job.task.microbatch, job.tag.step, whole.error().message);
  return whole.has_value();
}

}  // namespace

JobRunner::JobRunner(const protocol::Plan& plan, Options options, store::Journal* journal,
                     store::CheckpointStore* checkpoints)
    : plan_(plan), options_(std::move(options)), journal_(journal), checkpoints_(checkpoints) {}

Result<StageReady> JobRunner::start(const std::vector<std::uint64_t>& versions) {
  auto made = options_.make();
  if (!made) return tl::unexpected(made.error());
  stage_ = std::move(*made);
  StageReady ready;
  for (std::size_t i = 0; i < versions.size(); ++i) {
    ready.version = versions[i];
    if (ready.version == 0) break;
    const Status loaded = load(ready.version, ready.timeline);
    if (loaded) break;
    if (i + 1 == versions.size()) return tl::unexpected(loaded.error());
    warn(loaded);
  }
  ready.device = stage_->measure();
  return ready;
}

Result<std::optional<protocol::JobResult>> JobRunner::run(const Job& job) {
  auto answer = std::visit([this](const auto& j) { return carry_out(j); }, job);
  // The only job that makes the stage anew.
  if (!stage_) return tl::unexpected(Error{std::get<protocol::LoadDone>(*answer).error});
  return answer;
}

// --------------------------------------------------------------------------------------------- microbatches

JobRunner::Answer JobRunner::carry_out(const protocol::RunOperation& job) {
  protocol::OperationDone done{job.tag, job.task, {}, {}, {}};
  switch (job.task.operation) {
    case protocol::Operation::kForward:
      forward(job, done);
      break;
    case protocol::Operation::kInputGradient:
      input_gradient(job, done);
      break;
    case protocol::Operation::kWeightGradient:
      stage_->weight_gradient(job.task.microbatch);
      break;
  }
  return done;
}

void JobRunner::forward(const protocol::RunOperation& job, protocol::OperationDone& done) {
  const MicrobatchId m = job.task.microbatch;
  if (!is_whole(job, done)) return;
  // Evaluation microbatches follow the training ones of the step; the stage counts them from 0.
  const MicrobatchId index = job.training ? m : MicrobatchId(m.value - plan_.training_count(job.tag.step));
  auto forward = stage_->forward(job.tag.step, index, job.training, job.tensor);
  if (!forward) {
    done.error = forward.error().message;
    return;
  }
  done.tensor = std::move(forward->output);
  compress::seal(done.tensor);
  if (forward->loss) {
    forward->loss->microbatch = m;
    done.loss.push_back(*forward->loss);
  }
  if (job.training && options_.stage != plan_.last_stage()) note_sent(job.tag, m, false, done.tensor);
}

void JobRunner::input_gradient(const protocol::RunOperation& job, protocol::OperationDone& done) {
  if (options_.stage != plan_.last_stage() && !is_whole(job, done)) return;
  auto gradient = stage_->input_gradient(job.task.microbatch, job.tensor);
  if (!gradient) {
    done.error = gradient.error().message;
    return;
  }
  done.tensor = std::move(*gradient);
  compress::seal(done.tensor);
  if (options_.stage != StageId(0)) note_sent(job.tag, job.task.microbatch, true, done.tensor);
}

// ------------------------------------------------------------------------------------------------- a step

JobRunner::Answer JobRunner::carry_out(const protocol::RunClose& job) {
  sync_journal();
  auto sum = stage_->close();
  return protocol::CloseDone{job.tag, job.epoch, std::move(sum.bytes), sum.finite};
}

JobRunner::Answer JobRunner::carry_out(const protocol::RunAdd& job) {
  return protocol::AddDone{job.tag, job.epoch, stage_->add(job.parts)};
}

JobRunner::Answer JobRunner::carry_out(const protocol::RunPrepare& job) {
  if (job.totals.empty()) sync_journal();
  auto prepared = stage_->prepare(job.totals, job.finite);
  if (stage_->outer()) prepared.sum_digest = job.sync ? stage_->outer()->digest() : "";
  return protocol::PrepareDone{job.tag,
                               job.epoch,
                               std::move(prepared.norms),
                               prepared.finite,
                               std::move(prepared.sum_digest),
                               job.keep_total ? stage_->total() : nullptr};
}

JobRunner::Answer JobRunner::carry_out(const protocol::RunApply& job) {
  if (job.sync) stage_->settle_sync();
  stage_->apply(job.commit, options_.learning_rate(job.commit.step));
  return std::nullopt;
}

JobRunner::Answer JobRunner::carry_out(const protocol::RunFollow& job) {
  if (job.sync) {
    stage_->drop_step();
    const Status taken = stage_->outer()->take_all(job.commit.step.value - 1, joined(job.pieces));
    if (taken) stage_->settle_sync();
    return protocol::LoadDone{job.commit.step.value, taken ? "" : taken.error().message};
  }
  (void)stage_->prepare({joined(job.pieces)}, true);
  stage_->apply(job.commit, options_.learning_rate(job.commit.step));
  return std::nullopt;
}

JobRunner::Answer JobRunner::carry_out(const protocol::RunDropStep&) {
  stage_->drop_step();
  return std::nullopt;
}

// ------------------------------------------------------------------------------------------------- a sync

JobRunner::Answer JobRunner::carry_out(const protocol::RunUpdate& job) {
  return protocol::UpdateDone{job.version, stage_->updates(job.version)};
}

JobRunner::Answer JobRunner::carry_out(const protocol::RunAgree& job) {
  auto agreement = stage_->outer()->agree(job.version, job.slice, job.updates);
  return protocol::AgreeDone{job.version,
                             job.slice,
                             job.number,
                             std::move(agreement.bytes),
                             std::move(agreement.digest),
                             std::move(agreement.offences),
                             ""};
}

JobRunner::Answer JobRunner::carry_out(const protocol::RunTake& job) {
  auto taken = stage_->outer()->take(job.version, job.slice, job.agreement);
  protocol::AgreeDone done{
      job.version, job.slice, job.number, job.agreement, "", {}, taken ? "" : taken.error().message};
  if (taken) done.digest = std::move(taken->digest);
  return done;
}

// ----------------------------------------------------------------------------------------- whole versions

JobRunner::Answer JobRunner::carry_out(const protocol::RunSave& job) {
  checkpoints_->write({job.version, job.timeline, job.whole}, stage_->copy(),
                      [version = job.version, timeline = job.timeline, saved = options_.saved](const Status& written) {
                        saved({version, timeline, written ? "" : written.error().message});
                      });
  return std::nullopt;
}

JobRunner::Answer JobRunner::carry_out(const protocol::RunLoad& job) {
  checkpoints_->wait();
  checkpoints_->forget(job.version, job.timeline);
  // Where it is damaged, or was not written, there is less to repeat from an older one than from the beginning.
  auto versions = checkpoints_->versions();
  std::erase_if(versions, [&](std::uint64_t version) { return version > job.version; });
  stage_->drop_step();
  for (const auto version : std::views::reverse(versions)) {
    std::uint32_t timeline = 0;
    const Status loaded = load(version, timeline);
    if (loaded) return protocol::LoadDone{version, ""};
    warn(loaded);
  }
  stage_.reset();
  auto made = options_.make();
  if (!made) return protocol::LoadDone{0, made.error().message};
  stage_ = std::move(*made);
  return protocol::LoadDone{0, ""};
}

Status JobRunner::load(std::uint64_t version, std::uint32_t& timeline) {
  const auto checkpoint = checkpoints_->read(version);
  if (!checkpoint) return tl::unexpected(checkpoint.error());
  timeline = checkpoint->timeline;
  return stage_->load(*checkpoint);
}

JobRunner::Answer JobRunner::carry_out(const protocol::RunDigests&) {
  return protocol::DigestsDone{stage_->weight_digests()};
}

JobRunner::Answer JobRunner::carry_out(const protocol::RunRestore& job) {
  const SharedBytes state = joined(job.pieces);
  const Status restored =
      digest_hex(*state) == job.digest
          ? stage_->restore(*state)
          : Status(fail("a snapshot of {} bytes has not the digest that its giver said; it is fetched again",
                        state->size()));
  return protocol::LoadDone{job.version, restored ? "" : restored.error().message};
}

JobRunner::Answer JobRunner::carry_out(const protocol::RunSnapshot& job) {
  auto state = stage_->state();
  std::string digest = digest_hex(*state);
  return protocol::SnapshotDone{job.version, std::move(state), std::move(digest)};
}

// ---------------------------------------------------------------------------------------------- the journal

JobRunner::Answer JobRunner::carry_out(const protocol::RunRecall& job) {
  protocol::RecallDone done{job.asker, job.piece, false, {}};
  if (journal_)
    if (auto tensor = journal_->find({StepId(job.piece.version), job.piece.attempt, MicrobatchId(job.piece.index),
                                      job.piece.kind == protocol::PieceKind::kGradient})) {
      done.found = true;
      done.tensor = std::move(*tensor);
    }
  return done;
}

JobRunner::Answer JobRunner::carry_out(const protocol::RunTrim& job) {
  if (journal_) journal_->trim(job.version);
  return std::nullopt;
}

void JobRunner::note_sent(const protocol::JobTag& tag, MicrobatchId m, bool gradient,
                          const compress::EncodedTensor& tensor) {
  if (journal_) warn(journal_->append({tag.step, tag.attempt, m, gradient}, tensor));
}

void JobRunner::sync_journal() {
  if (journal_) warn(journal_->sync());
}

void JobRunner::warn(const Status& status) {
  if (!status) warning_ = status.error().message;
}

}  // namespace isthmus::runner
