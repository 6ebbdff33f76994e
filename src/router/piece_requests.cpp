#include "router/piece_requests.h"

#include <algorithm>

namespace isthmus::router {

namespace {

constexpr std::size_t kInFlight = 4;  // per source

}  // namespace

// A source sends at a quarter of its uplink, so this many pieces may stand before the one that was asked for.
Duration PieceRequests::patience() const {
  const double piece =
      static_cast<double>(std::max(protocol::kPieceBytes, context_.plan.forward_bytes + context_.plan.token_bytes));
  return 2 * context_.identity.ask_after + seconds(4.0 * kInFlight * piece * 2 / context_.identity.bytes_per_second);
}

void PieceRequests::clear() {
  wanted_.clear();
  sources_.clear();
}

void PieceRequests::want(const protocol::Piece& piece) { wanted_.try_emplace(piece); }

void PieceRequests::ask(const std::vector<const protocol::Member*>& sources, Time now) {
  std::map<PeerId, std::size_t> in_flight;
  sources_.clear();
  for (const protocol::Member* source : sources) {
    in_flight[source->peer] = 0;
    sources_.insert(source->peer);
  }
  for (auto& [piece, wanted] : wanted_) {
    const bool silent = now - wanted.asked_at >= patience();
    if (wanted.asked != kCoordinator && (silent || !sources_.contains(wanted.asked))) wanted.asked = kCoordinator;
    if (wanted.asked != kCoordinator) ++in_flight[wanted.asked];
  }
  for (auto& [piece, wanted] : wanted_) {
    if (wanted.asked != kCoordinator) continue;
    const protocol::Member* best = nullptr;
    for (const protocol::Member* source : sources)
      if (!wanted.absent.contains(source->peer) && in_flight[source->peer] < kInFlight &&
          (!best || in_flight[source->peer] < in_flight[best->peer]))
        best = source;
    if (!best) continue;
    wanted.asked = best->peer;
    wanted.asked_at = now;
    ++in_flight[best->peer];
    context_.run(protocol::SendMessage{
        best->peer, protocol::Fetch{context_.session, best->session, context_.view.timeline(), piece}});
  }
}

bool PieceRequests::arrived(const protocol::Piece& piece, PeerId from) {
  const auto at = wanted_.find(piece);
  if (at == wanted_.end() || at->second.asked != from) return false;
  wanted_.erase(at);
  return true;
}

void PieceRequests::absent(const protocol::Piece& piece, PeerId from) {
  const auto at = wanted_.find(piece);
  if (at == wanted_.end() || at->second.asked != from) return;
  at->second.asked = kCoordinator;
  at->second.absent.insert(from);
}

void PieceRequests::forget_asked(PeerId peer) {
  for (auto& [piece, wanted] : wanted_)
    if (wanted.asked == peer) wanted.asked = kCoordinator;
}

std::optional<protocol::Piece> PieceRequests::lost() const {
  if (sources_.empty()) return std::nullopt;
  for (const auto& [piece, wanted] : wanted_)
    if (std::ranges::all_of(sources_, [&](PeerId source) { return wanted.absent.contains(source); })) return piece;
  return std::nullopt;
}

void PieceRequests::forget_absences() {
  for (auto& [piece, wanted] : wanted_) wanted.absent.clear();
}

Time PieceRequests::next_due() const {
  Time due = kNever;
  for (const auto& [piece, wanted] : wanted_)
    if (wanted.asked != kCoordinator) due = std::min(due, wanted.asked_at + patience());
  return due;
}

}  // namespace isthmus::router
