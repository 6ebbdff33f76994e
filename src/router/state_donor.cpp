#include "router/state_donor.h"

#include <algorithm>

namespace isthmus::router {

namespace {

constexpr Duration kFollowed = seconds(30);  // after the last request
constexpr Duration kUnused = seconds(5);     // a snapshot may make room for another, whoever may want it
constexpr std::size_t kQueueMax = 1024;
constexpr std::size_t kSnapshotsMax = 2;
// At the device at once: its queue has room for 64 jobs, and whoever hands it one more waits.
constexpr std::size_t kRecallsMax = 8;
// Of one asker. One that begins a stage again repeats a dozen microbatches at a time.
constexpr std::ptrdiff_t kRecallsOfOneMax = 256;
// While somebody follows: whoever fetched a snapshot for minutes has missed the steps of all that time.
constexpr std::size_t kFollowedUpdatesMax = 1 << 16;
constexpr std::uint64_t kUpdateBytesMax = 512ull << 20;
// While nobody does.
constexpr std::size_t kIdleUpdatesMax = 32;
// Of small ones, as many as a member that was away may have missed.
constexpr std::uint64_t kIdleUpdateBytesMax = 64ull << 20;

// Piece `index` of what these make one after the other; a copy only where it lies in several.
SharedBytes cut(const std::vector<SharedBytes>& parts, std::uint32_t index) {
  const std::uint64_t first = index * protocol::kPieceBytes, end = first + protocol::kPieceBytes;
  Bytes piece;
  std::uint64_t at = 0;
  for (const auto& part : parts) {
    const std::uint64_t from = std::clamp(first, at, at + part->size()) - at;
    const std::uint64_t to = std::clamp(end, at, at + part->size()) - at;
    const SharedBytes within = part.part(from, to - from);
    if (piece.empty() && (to - from == protocol::kPieceBytes || (&part == &parts.back() && to > from))) return within;
    piece.insert(piece.end(), within->begin(), within->end());
    at += part->size();
  }
  return share(std::move(piece));
}

}  // namespace

void StateDonor::forget() {
  update_requests_.clear();
  snapshot_requests_.clear();
  recall_requests_.clear();
  snapshots_.clear();
  updates_.clear();
}

const protocol::Member* StateDonor::find(SessionId session) const {
  const protocol::Member* member = context_.view.find_joining(session);
  return member ? member : context_.view.find(session);
}

// One that is only about to ask will want what comes after its snapshot.
bool StateDonor::is_followed(Time now) const {
  return now < followed_until_ || std::ranges::any_of(context_.view.joining, [&](const protocol::Member& m) {
           return m.stage == context_.identity.stage;
         });
}

void StateDonor::received(const protocol::Fetch& fetch, PeerId from, std::uint64_t version, Time now) {
  const protocol::Member* asker = find(fetch.from);
  if (!asker || asker->peer != from || fetch.to != context_.session || fetch.timeline != context_.view.timeline())
    return;
  const Request request{fetch.from, fetch.piece};
  const bool journal =
      fetch.piece.kind == protocol::PieceKind::kInput || fetch.piece.kind == protocol::PieceKind::kGradient;
  if (journal) {
    // Inputs are asked for by a stage after this one, gradients by one before. The path of that step may have left one
    // out.
    const bool later = asker->stage > context_.identity.stage;
    const std::uint32_t distance = context_.distance(asker->stage);
    if (distance == 0 || distance > context_.plan.reach() || later != (fetch.piece.kind == protocol::PieceKind::kInput))
      return;
    want_recall(request);
    return;
  }
  // Nobody but a sibling gets weights.
  if (asker->stage != context_.identity.stage || !context_.live()) return;
  // Replicas that step on their own have in common what they agreed on last.
  const bool snapshot = fetch.piece.kind == protocol::PieceKind::kSnapshot;
  const std::uint64_t newest = context_.local() ? context_.plan.last_sync(version) : version;
  const auto kept = updates_.find(fetch.piece.version);
  const std::uint64_t bytes = snapshot ? context_.stage_plan().state_bytes
                              : context_.local()
                                  ? (kept == updates_.end() ? protocol::kPieceBytes : kept->second.bytes())
                                  : context_.stage_plan().parameters * context_.plan.total_width;
  if (fetch.piece.index >= protocol::piece_count(bytes)) return;
  followed_until_ = now + kFollowed;
  for (auto& [version, taken] : snapshots_)
    if (!snapshot || version != fetch.piece.version) taken.askers.erase(fetch.from);
  if (fetch.piece.version > newest) return;  // not yet: it will be asked again
  const bool have = snapshot ? snapshots_.contains(fetch.piece.version) ||
                                   (fetch.piece.version == newest && take_snapshot(newest, now))
                             : kept != updates_.end();
  if (!have) {
    refuse(request);
    return;
  }
  if (snapshot) snapshots_.at(fetch.piece.version).askers.insert(fetch.from);
  auto& queue = snapshot ? snapshot_requests_ : update_requests_;
  const bool queued = std::ranges::any_of(
      queue, [&](const Request& r) { return r.asker == request.asker && r.piece == request.piece; });
  if (!queued && queue.size() < kQueueMax) queue.push_back(request);
  serve(now);
}

// Somebody is still fetching it.
bool StateDonor::is_wanted(const Snapshot& snapshot, Time now) const {
  const auto joins = [&](SessionId asker) { return context_.view.find_joining(asker) != nullptr; };
  return now - snapshot.used < kUnused && std::ranges::any_of(snapshot.askers, joins);
}

// Jobs run in order, so this is the state of `version`, whatever the device is given afterwards.
bool StateDonor::take_snapshot(std::uint64_t version, Time now) {
  if (snapshots_.size() >= kSnapshotsMax) {
    const auto free = std::ranges::find_if(snapshots_, [&](const auto& s) { return !is_wanted(s.second, now); });
    if (free == snapshots_.end()) return false;
    snapshots_.erase(free);
  }
  snapshots_[version] = Snapshot{version, nullptr, "", now, {}};
  context_.run(protocol::RunSnapshot{version});
  return true;
}

void StateDonor::snapshot_done(const protocol::SnapshotDone& done, Time now) {
  const auto at = snapshots_.find(done.version);
  if (at == snapshots_.end()) return;
  at->second.state = done.state;
  at->second.digest = done.digest;
  serve(now);
}

std::uint64_t StateDonor::Update::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& part : totals) sum += part->size();
  return sum;
}

void StateDonor::applied(const protocol::Commit& commit, std::vector<SharedBytes> totals) {
  if (totals.empty()) {
    updates_.clear();  // a gap: what came before is of no use without this one
    return;
  }
  updates_[commit.step.value] = {commit, std::move(totals)};
  forget_updates(kFollowedUpdatesMax, kUpdateBytesMax);
}

// But the newest few.
void StateDonor::forget_updates(std::size_t most, std::uint64_t bytes_max) {
  std::uint64_t bytes = 0;
  for (const auto& [version, update] : updates_) bytes += update.bytes();
  while (updates_.size() > 1 && (updates_.size() > most || bytes > bytes_max)) {
    bytes -= updates_.begin()->second.bytes();
    updates_.erase(updates_.begin());
  }
}

void StateDonor::refuse(const Request& request) {
  if (const protocol::Member* asker = find(request.asker))
    context_.run(protocol::SendMessage{
        asker->peer, protocol::Absent{context_.session, request.asker, context_.view.timeline(), request.piece}});
}

void StateDonor::send(const Request& request, protocol::Chunk chunk, Time now) {
  const protocol::Member* asker = find(request.asker);
  if (!asker) return;
  chunk.from = context_.session;
  chunk.to = request.asker;
  chunk.timeline = context_.view.timeline();
  chunk.piece = request.piece;
  const std::uint64_t bytes = chunk.tensor.bytes();
  if (request.piece.kind == protocol::PieceKind::kSnapshot)
    context_.uplink.sent_spare(bytes, now);
  else
    free_at_ = std::max(free_at_, now) + seconds(static_cast<double>(bytes) / context_.identity.bytes_per_second);
  context_.run(protocol::SendMessage{asker->peer, std::move(chunk)});
}

// Whoever has a snapshot waits for sums, and would never be done behind those that fetch one.
void StateDonor::serve(Time now) {
  serve_updates(now);
  serve_snapshots(now);
}

void StateDonor::serve_updates(Time now) {
  while (!update_requests_.empty() && free_at_ <= now) {
    const Request request = update_requests_.front();
    update_requests_.pop_front();
    const auto at = updates_.find(request.piece.version);
    if (at == updates_.end()) {
      refuse(request);
      continue;
    }
    protocol::Chunk chunk;
    chunk.commit = at->second.commit;
    chunk.whole = at->second.bytes();
    chunk.tensor.values = cut(at->second.totals, request.piece.index);
    send(request, std::move(chunk), now);
  }
}

void StateDonor::serve_snapshots(Time now) {
  while (!snapshot_requests_.empty() && context_.uplink.next_at() <= now) {
    const Request request = snapshot_requests_.front();
    const auto at = snapshots_.find(request.piece.version);
    if (at != snapshots_.end() && !at->second.state) return;  // still being taken
    snapshot_requests_.pop_front();
    if (at == snapshots_.end()) {
      refuse(request);
      continue;
    }
    at->second.used = now;
    protocol::Chunk chunk;
    chunk.digest = at->second.digest;
    chunk.tensor.values = cut({at->second.state}, request.piece.index);
    send(request, std::move(chunk), now);
  }
}

void StateDonor::want_recall(const Request& request) {
  const auto same = [&](const Request& r) { return r.asker == request.asker && r.piece == request.piece; };
  const auto of_asker = std::ranges::count(recall_requests_, request.asker, &Request::asker);
  if (of_asker >= kRecallsOfOneMax || std::ranges::any_of(recall_requests_, same)) return;
  recall_requests_.push_back(request);
  recall_next();
}

void StateDonor::recall_next() {
  while (recalls_ < kRecallsMax && !recall_requests_.empty()) {
    const Request request = recall_requests_.front();
    recall_requests_.pop_front();
    if (!find(request.asker)) continue;
    ++recalls_;
    context_.run(protocol::RunRecall{request.asker, request.piece});
  }
}

// A stage that waits for its journal holds up everybody: no pace for it.
void StateDonor::recalled(const protocol::RecallDone& done) {
  --recalls_;
  recall_next();
  const Request request{done.asker, done.piece};
  if (!done.found) {
    refuse(request);
    return;
  }
  const protocol::Member* asker = find(done.asker);
  if (!asker) return;
  protocol::Chunk chunk{context_.session, done.asker, context_.view.timeline(), done.piece, "", {}, done.tensor};
  context_.run(protocol::SendMessage{asker->peer, std::move(chunk)});
}

void StateDonor::tick(Time now) {
  serve(now);
  if (is_followed(now)) return;
  snapshots_.clear();
  // Nobody follows, but one that was away may come back.
  if (context_.local())
    forget_updates(kIdleUpdatesMax, kIdleUpdateBytesMax);
  else
    forget_updates(1, kUpdateBytesMax);
}

Time StateDonor::next_due() const {
  const Time updates = update_requests_.empty() ? kNever : free_at_;
  if (snapshot_requests_.empty()) return updates;
  const auto snapshot = snapshots_.find(snapshot_requests_.front().piece.version);
  const bool being_taken = snapshot != snapshots_.end() && !snapshot->second.state;
  return being_taken ? updates : std::min(updates, context_.uplink.next_at());
}

}  // namespace isthmus::router
