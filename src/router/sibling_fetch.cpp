#include "router/sibling_fetch.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/digest.h"

namespace isthmus {

namespace {

// Beyond this many missed commits a snapshot is tried first.
constexpr std::uint64_t kUpdatesMax = 8;

}  // namespace

void SiblingFetch::stop() {
  requests_.clear();
  pieces_.clear();
  wants_ = Wants::kNothing;
}

std::uint64_t SiblingFetch::bytes() const {
  return wants_ == Wants::kSnapshot ? context_.stage_plan().state_bytes
                                    : context_.stage_plan().parameters * context_.plan.total_width;
}

void SiblingFetch::begin_update(std::uint64_t version) {
  stop();
  wants_ = Wants::kUpdate;
  version_ = version;
  for (std::uint32_t i = 0; i < piece_count(bytes()); ++i) requests_.want({PieceKind::kUpdate, version, 0, i});
}

void SiblingFetch::begin_snapshot() {
  stop();
  wants_ = Wants::kSnapshot;
  version_ = context_.view.step.value - 1;
  digest_.clear();
  for (std::uint32_t i = 0; i < piece_count(bytes()); ++i) requests_.want({PieceKind::kSnapshot, version_, 0, i});
}

void SiblingFetch::pursue(std::uint64_t version, Time now) {
  if (restoring_) return;
  if (wants_ == Wants::kUpdate && version_ != version + 1) stop();
  if (wants_ == Wants::kNothing) {
    if (version > 0 && context_.view.step.value - 1 - version <= kUpdatesMax)
      begin_update(version + 1);
    else
      begin_snapshot();
  }
  requests_.ask(context_.own_stage(), now);
}

bool SiblingFetch::received(const Chunk& chunk, PeerId from, std::uint64_t& version, Time now) {
  const std::uint32_t index = chunk.piece.index;
  const std::uint64_t begins = index * kPieceBytes;
  const std::uint64_t size = chunk.tensor.values ? chunk.tensor.values->size() : 0;
  if (!requests_.wants(chunk.piece) || begins + size != std::min(bytes(), begins + kPieceBytes)) return false;
  if (wants_ == Wants::kUpdate && chunk.commit.step.value != version_) return false;
  if (!requests_.arrived(chunk.piece, from)) return false;
  if (wants_ == Wants::kSnapshot && !digest_.empty() && chunk.digest != digest_) {
    begin_snapshot();  // siblings that differ: whole again, from wherever it comes
    return true;
  }
  digest_ = chunk.digest;
  commit_ = chunk.commit;
  pieces_[index] = chunk.tensor.values;
  if (!requests_.empty()) {
    requests_.ask(context_.own_stage(), now);
    return true;
  }
  Bytes whole;
  whole.reserve(bytes());
  for (const auto& [i, piece] : pieces_) whole.insert(whole.end(), piece->begin(), piece->end());
  const bool snapshot = wants_ == Wants::kSnapshot;
  stop();
  if (!snapshot) {
    context_.run(RunFollow{context_.for_own_stage(commit_), share(std::move(whole))});
    version = version_;
  } else if (digest_hex(whole) == digest_) {
    restoring_ = true;
    context_.run(RunRestore{version_, share(std::move(whole))});
  }
  return true;
}

void SiblingFetch::received(const Absent& absent, PeerId from, Time) {
  requests_.absent(absent.piece, from);
  if (!requests_.lost()) return;
  // Nobody keeps it any more. What is current now is asked for at the next view or tick.
  if (wants_ == Wants::kUpdate || version_ + 1 != context_.view.step.value)
    begin_snapshot();
  else
    requests_.forget_absences();
}

std::string SiblingFetch::progress() const {
  if (restoring_) return "its new weights";
  const std::uint32_t all = piece_count(bytes());
  return fmt::format("{} {} from its siblings, {} of {} pieces here", wants_ == Wants::kUpdate ? "update" : "snapshot",
                     version_, pieces_.size(), all);
}

}  // namespace isthmus
