#include "router/stage_rebuild.h"

#include <fmt/format.h>

#include <algorithm>

namespace isthmus::router {

namespace {

// A neighbour that died may come back with its journal.
constexpr Duration kJournalPatience = seconds(10);
constexpr Duration kAskJournalsAgain = seconds(1);
constexpr std::uint32_t kRunningMax = 12;

}  // namespace

void StageRebuild::stop() {
  if (commit_) context_.run(protocol::RunDropStep{});
  requests_.clear();
  commit_.reset();
  microbatches_.clear();
  running_ = finished_ = 0;
  missing_since_ = kNever;
  impossible_.clear();
}

std::vector<const protocol::Member*> StageRebuild::members_of(StageId stage) const {
  std::vector<const protocol::Member*> members = context_.view.replicas_of(stage);
  // One that joins still has the journal of its earlier life.
  for (const auto& member : context_.view.joining)
    if (member.stage == stage) members.push_back(&member);
  return members;
}

PieceRequests& StageRebuild::of_piece(const protocol::Piece& piece) {
  const MicrobatchId m(piece.index);
  const StageId own = context_.identity.stage;
  return of_stage(piece.kind == protocol::PieceKind::kInput ? paths_.previous(m, own) : paths_.next(m, own));
}

void StageRebuild::forget_asked(PeerId peer) {
  for (auto& [stage, requests] : requests_) requests.forget_asked(peer);
}

void StageRebuild::begin(const protocol::Commit& commit, Time now) {
  paths_ = protocol::StepPaths(context_.plan, commit.step, commit.absent);
  commit_ = paths_.for_stage(commit, context_.identity.stage);
  // No session is that small: results of an earlier try at the same step are not taken for this one's.
  tag_ = {commit.step, commit.attempt, SessionId(++tries_)};
  microbatches_.clear();
  running_ = finished_ = 0;
  context_.run(protocol::RunDropStep{});
  const auto want = [&](const protocol::Piece& piece) { of_piece(piece).want(piece); };
  const std::uint32_t count = commit_->apply ? context_.plan.training_count(commit.step) : 0;
  std::set<MicrobatchId> all;
  for (std::uint32_t m = 0; m < count; ++m) {
    if (!paths_.visits(MicrobatchId(m), context_.identity.stage)) continue;
    auto& microbatch = microbatches_[m];
    if (context_.is_head())
      all.insert(MicrobatchId(m));
    else
      want({protocol::PieceKind::kInput, commit.step.value, commit.attempt, m});
    if (context_.is_tail())
      microbatch.gradient.emplace();
    else
      want({protocol::PieceKind::kGradient, commit.step.value, commit.attempt, m});
  }
  tokens_.want(commit.step, all, now);
}

void StageRebuild::read_tokens() {
  for (auto& [m, microbatch] : microbatches_)
    if (!microbatch.given && !microbatch.input)
      if (const auto* ids = tokens_.find(commit_->step, MicrobatchId(m))) microbatch.input = *ids;
}

void StageRebuild::pursue(std::uint64_t& version, Time now) {
  if (context_.local()) return lose("its replicas stepped on their own, and no journal holds how", now);
  while (true) {
    if (!commit_) {
      const auto at = std::ranges::find(context_.view.replay, StepId(version + 1), &protocol::Commit::step);
      if (at == context_.view.replay.end()) return;  // a newer view brings more
      begin(*at, now);
    }
    if (finished_ < microbatches_.size()) break;
    if (commit_->apply) context_.run(protocol::RunPrepare{tag_, EpochId(0), {}, true, false});
    context_.run(protocol::RunApply{*commit_});
    version = commit_->step.value;
    commit_.reset();
  }
  for (const auto& [stage, requests] : requests_)
    if (const auto lost = requests.lost())
      lose(fmt::format("no journal holds the {} of microbatch {} in step {}",
                       lost->kind == protocol::PieceKind::kInput ? "input" : "gradient", lost->index, lost->version),
           now);
  if (missing_since_ != kNever && now - asked_again_ >= kAskJournalsAgain) {
    asked_again_ = now;
    for (auto& [stage, requests] : requests_) requests.forget_absences();
  }
  for (auto& [stage, requests] : requests_) {
    if (requests.empty()) continue;
    const auto members = members_of(stage);
    if (members.empty()) lose(fmt::format("nobody is left of stage {}", stage), now);
    requests.ask(members, now);
  }
  run_ready();
}

void StageRebuild::lose(const std::string& why, Time now) {
  if (missing_since_ == kNever) missing_since_ = now;
  missing_ = why;
  if (now - missing_since_ >= kJournalPatience) impossible_ = missing_;
}

void StageRebuild::run_ready() {
  if (!commit_) return;
  if (context_.is_head()) read_tokens();
  for (auto& [m, microbatch] : microbatches_) {
    if (running_ >= kRunningMax) return;
    if (microbatch.given || !microbatch.input || !microbatch.gradient) continue;
    microbatch.given = true;
    running_ += 3;
    const MicrobatchId id(m);
    context_.run(protocol::RunOperation{tag_, {protocol::Operation::kForward, id}, true, std::move(*microbatch.input)});
    context_.run(
        protocol::RunOperation{tag_, {protocol::Operation::kInputGradient, id}, true, std::move(*microbatch.gradient)});
    context_.run(protocol::RunOperation{tag_, {protocol::Operation::kWeightGradient, id}, true, {}});
  }
}

bool StageRebuild::received(const protocol::Chunk& chunk, PeerId from, std::uint64_t& version, Time now) {
  const bool is_input = chunk.piece.kind == protocol::PieceKind::kInput;
  const auto wanted = [&](auto& entry) { return entry.second.wants(chunk.piece); };
  if (!commit_ || std::ranges::none_of(requests_, wanted) || !of_piece(chunk.piece).arrived(chunk.piece, from))
    return false;
  auto& microbatch = microbatches_[chunk.piece.index];
  (is_input ? microbatch.input : microbatch.gradient) = chunk.tensor;
  missing_since_ = kNever;
  pursue(version, now);
  return true;
}

void StageRebuild::received(const protocol::Absent& absent, PeerId from) {
  for (auto& [stage, requests] : requests_) requests.absent(absent.piece, from);
}

bool StageRebuild::operation_done(const protocol::OperationDone& done) {
  if (!commit_ || done.tag != tag_) return false;
  --running_;
  if (done.task.operation == protocol::Operation::kWeightGradient) ++finished_;
  return true;
}

Time StageRebuild::next_due() const {
  if (!commit_) return kNever;
  Time due = kNever;
  for (const auto& [stage, requests] : requests_) due = std::min(due, requests.next_due());
  return missing_since_ == kNever ? due : std::min(due, asked_again_ + kAskJournalsAgain);
}

std::string StageRebuild::progress() const {
  if (!commit_) return "the decisions it missed";
  std::string text =
      fmt::format("step {} again, {} of {} microbatches", commit_->step, finished_, microbatches_.size());
  if (missing_since_ != kNever) text += "; " + missing_;
  const auto lacks = [](const auto& m) { return !m.second.given && !m.second.input; };
  if (context_.is_head() && std::ranges::any_of(microbatches_, lacks)) text += "; tokens from the coordinator";
  return text;
}

}  // namespace isthmus::router
