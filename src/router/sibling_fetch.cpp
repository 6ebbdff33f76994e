#include "router/sibling_fetch.h"

#include <fmt/format.h>

#include <algorithm>

namespace isthmus::router {

namespace {

// Beyond this many missed commits a snapshot is tried first.
constexpr std::uint64_t kMissedCommitsMax = 8;
// Members of a stage whose updates one sync may be made of.
constexpr std::uint64_t kMembersMax = 256;
// Siblings that give others theirs may have no room for one more snapshot at the moment.
constexpr Duration kAskSiblingsAgain = std::chrono::milliseconds(250);

}  // namespace

void SiblingFetch::stop() {
  clear();
  givers_.clear();
  follows_ = false;
}

void SiblingFetch::clear() {
  requests_.clear();
  pieces_.clear();
  wants_ = Wants::kNothing;
}

std::uint64_t SiblingFetch::bytes() const {
  if (wants_ == Wants::kSnapshot) return context_.stage_plan().state_bytes;
  return context_.local() ? whole_ : context_.stage_plan().parameters * context_.plan.total_width;
}

// The newest version that siblings hold alike.
std::uint64_t SiblingFetch::newest() const {
  const std::uint64_t version = context_.view.step.value - 1;
  return context_.local() ? context_.plan.last_sync(version) : version;
}

// The version that the next update makes of this one.
std::uint64_t SiblingFetch::after(std::uint64_t version) const {
  return context_.local() ? context_.plan.next_sync(version) : version + 1;
}

// What the replicas tell each other at a sync is much less than the weights, so many syncs are made up for before it is
// not.
bool SiblingFetch::updates_are_cheaper(std::uint64_t version) const {
  // Whoever has a snapshot follows from there, however long it took: another one would take as long again.
  if (!context_.local()) return version > 0 && (follows_ || newest() - version <= kMissedCommitsMax);
  if (distrusts_updates_) return false;
  std::uint64_t bytes = 0;
  for (std::uint64_t missed = after(version); missed <= newest() && bytes <= context_.stage_plan().state_bytes;
       missed = after(missed)) {
    bytes += update_bytes(missed);
    if (missed == newest()) break;
  }
  return bytes <= context_.stage_plan().state_bytes;
}

// Of the sync that makes this version, with as many replicas as there are today.
std::uint64_t SiblingFetch::update_bytes(std::uint64_t version) const {
  std::uint64_t all = 0;
  for (const auto bytes : context_.plan.update_bytes(context_.identity.stage, version - 1)) all += bytes;
  return context_.plan.sparse_sync(version - 1) ? all * context_.own_stage().size() : all;
}

void SiblingFetch::begin_update(std::uint64_t version) {
  clear();
  wants_ = Wants::kUpdate;
  version_ = version;
  whole_ = 0;
  // How much of it there is the first piece says.
  const std::uint32_t pieces = context_.local() ? 1 : protocol::piece_count(bytes());
  for (std::uint32_t i = 0; i < pieces; ++i) requests_.want({protocol::PieceKind::kUpdate, version, 0, i});
}

void SiblingFetch::begin_snapshot() {
  clear();
  wants_ = Wants::kSnapshot;
  for (auto& [session, giver] : givers_) giver.pieces = 0;
  version_ = newest();
  digest_.clear();
  for (std::uint32_t i = 0; i < protocol::piece_count(bytes()); ++i)
    requests_.want({protocol::PieceKind::kSnapshot, version_, 0, i});
}

void SiblingFetch::pursue(std::uint64_t version, Time now) {
  if (restoring_) return;
  if (wants_ == Wants::kUpdate && version_ != after(version)) clear();
  if (wants_ == Wants::kNothing) {
    if (updates_are_cheaper(version))
      begin_update(after(version));
    else
      begin_snapshot();
  }
  requests_.ask(context_.own_stage(), now);
  // The only one that had it may have gone without a word.
  if (requests_.lost()) {
    look_elsewhere(now);
    requests_.ask(context_.own_stage(), now);
  }
  note_lost_givers();
}

// Nobody keeps it any more: what is current now is.
void SiblingFetch::look_elsewhere(Time now) {
  if (wants_ == Wants::kUpdate || version_ != newest()) {
    begin_snapshot();
  } else if (now - refused_ >= kAskSiblingsAgain) {
    refused_ = now;
    requests_.forget_absences();
  }
}

void SiblingFetch::note_lost_givers() {
  if (wants_ != Wants::kSnapshot) return;
  bool more = false;
  for (auto& [session, giver] : givers_)
    if (!giver.lost && !context_.view.find(session)) more = giver.lost = true;
  if (more) tell();
}

void SiblingFetch::tell() {
  std::string of;
  for (const auto& [session, giver] : givers_)
    of += fmt::format("{} {} of worker {}{}", of.empty() ? ":" : ",", giver.pieces, giver.peer,
                      giver.lost ? " (gone)" : "");
  news_ =
      fmt::format("snapshot {}, {} of {} pieces here{}", version_, pieces_.size(), protocol::piece_count(bytes()), of);
}

bool SiblingFetch::received(const protocol::Chunk& chunk, PeerId from, std::uint64_t& version, Time now) {
  const std::uint32_t index = chunk.piece.index;
  const std::uint64_t begins = index * protocol::kPieceBytes;
  const std::uint64_t size = chunk.tensor.values->size();
  if (context_.local() && wants_ == Wants::kUpdate && whole_ == 0 && requests_.wants(chunk.piece)) {
    if (chunk.whole == 0 || chunk.whole > kMembersMax * update_bytes(version_)) return false;
    whole_ = chunk.whole;
    for (std::uint32_t i = 1; i < protocol::piece_count(whole_); ++i)
      requests_.want({protocol::PieceKind::kUpdate, version_, 0, i});
  }
  if (!requests_.wants(chunk.piece) || begins + size != std::min(bytes(), begins + protocol::kPieceBytes)) return false;
  if (wants_ == Wants::kUpdate && chunk.commit.step.value != version_) return false;
  if (!requests_.arrived(chunk.piece, from)) return false;
  if (wants_ == Wants::kSnapshot && !digest_.empty() && chunk.digest != digest_) {
    begin_snapshot();  // siblings that differ: whole again, from wherever it comes
    return true;
  }
  digest_ = chunk.digest;
  commit_ = chunk.commit;
  pieces_[index] = chunk.tensor.values;
  if (wants_ == Wants::kSnapshot) {
    Giver& giver = givers_.try_emplace(chunk.from, Giver{from}).first->second;
    if (++giver.pieces == 1 || requests_.empty()) tell();
  }
  if (!requests_.empty()) {
    requests_.ask(context_.own_stage(), now);
    return true;
  }
  std::vector<SharedBytes> pieces;
  for (auto& [i, piece] : pieces_) pieces.push_back(std::move(piece));
  const bool snapshot = wants_ == Wants::kSnapshot;
  clear();
  if (!snapshot && context_.local()) {
    // Whether replicas can have agreed on this, the device finds out.
    restoring_ = true;
    context_.run(protocol::RunFollow{context_.for_own_stage(commit_), std::move(pieces), true});
  } else if (!snapshot) {
    context_.run(protocol::RunFollow{context_.for_own_stage(commit_), std::move(pieces)});
    version = version_;
  } else {
    // Putting together and hashing what may be gigabytes is the device's, too: this thread has to answer.
    restoring_ = true;
    context_.run(protocol::RunRestore{version_, std::move(pieces), digest_});
  }
  return true;
}

void SiblingFetch::received(const protocol::Absent& absent, PeerId from, Time now) {
  requests_.absent(absent.piece, from);
  if (requests_.lost()) look_elsewhere(now);  // it is asked for at the next view or tick
}

std::string SiblingFetch::progress() const {
  if (restoring_) return "its new weights";
  const std::uint32_t all = protocol::piece_count(bytes());
  return fmt::format("{} {} from its siblings, {} of {} pieces here", wants_ == Wants::kUpdate ? "update" : "snapshot",
                     version_, pieces_.size(), all);
}

}  // namespace isthmus::router
