#include "router/piece_requests.h"

#include <algorithm>
#include <utility>

namespace isthmus::router {

namespace {

// A piece of a journal is a tensor; the others are as small as somebody likes it.
bool is_tensor(const protocol::Piece& piece) {
  return piece.kind == protocol::PieceKind::kInput || piece.kind == protocol::PieceKind::kGradient;
}

// At one source. Small ones are 2 MiB, what a link of 100 Mb/s moves in 150 ms.
std::size_t in_flight_max(const protocol::Piece& piece) { return is_tensor(piece) ? 4 : 32; }

// This is called ten times a second, or when something arrives.
constexpr Duration kCredit = std::chrono::milliseconds(200);

}  // namespace

// Of a source that gives nothing, whatever it was asked for. It may train on a narrow link, where a tenth is left for
// this, and have other joiners to give to.
Duration PieceRequests::patience(const protocol::Piece& piece) const {
  const auto& plan = context_.plan;
  const double bytes =
      is_tensor(piece) ? static_cast<double>(plan.forward_bytes + plan.token_bytes) : 10.0 * protocol::kPieceBytes;
  return 2 * context_.identity.ask_after +
         seconds(2 * static_cast<double>(in_flight_max(piece)) * bytes / context_.identity.bytes_per_second);
}

void PieceRequests::clear() {
  wanted_.clear();
  asked_.clear();
  absent_.clear();
  sources_.clear();
  paused_ = false;
}

void PieceRequests::want(const protocol::Piece& piece) {
  if (!asked_.contains(piece)) wanted_.insert(piece);
}

bool PieceRequests::is_absent(const protocol::Piece& piece, PeerId source) const {
  const auto at = absent_.find(piece);
  return at != absent_.end() && at->second.contains(source);
}

void PieceRequests::ask(const std::vector<const protocol::Member*>& sources, Time now) {
  paused_ = false;
  for (const PeerId source : std::exchange(gave_, {})) gave_at_[source] = now;
  sources_.clear();
  for (const protocol::Member* source : sources) sources_.insert(source->peer);
  std::map<PeerId, std::size_t> in_flight;
  std::erase_if(asked_, [&](const auto& entry) {
    const auto& [piece, asked] = entry;
    const bool silent = now - silent_since(asked) >= patience(piece);
    if (!silent && sources_.contains(asked.of)) {
      ++in_flight[asked.of];
      return false;
    }
    wanted_.insert(piece);
    return true;
  });
  if (wanted_.empty()) return;
  const std::size_t most = in_flight_max(*wanted_.begin());
  std::size_t room = 0;
  for (const protocol::Member* source : sources) room += most - std::min(most, in_flight[source->peer]);
  for (auto at = wanted_.begin(); at != wanted_.end() && room > 0;) {
    const protocol::Piece piece = *at;
    const protocol::Member* best = nullptr;
    for (const protocol::Member* source : sources)
      if (!is_absent(piece, source->peer) && in_flight[source->peer] < most &&
          (!best || in_flight[source->peer] < in_flight[best->peer]))
        best = source;
    if (!best) {
      ++at;
      continue;
    }
    const double rate = context_.identity.fetched_per_second;
    const bool limited = rate > 0 && piece.kind == protocol::PieceKind::kSnapshot;
    paused_ = limited && free_at_ > now;
    if (paused_) break;
    at = wanted_.erase(at);
    asked_[piece] = {best->peer, now};
    if (limited)
      free_at_ = std::max(free_at_, now - kCredit) + seconds(static_cast<double>(protocol::kPieceBytes) / rate);
    ++in_flight[best->peer];
    --room;
    context_.run(protocol::SendMessage{
        best->peer, protocol::Fetch{context_.session, best->session, context_.view.timeline(), piece}});
  }
}

Time PieceRequests::silent_since(const Asked& asked) const {
  const auto gave = gave_at_.find(asked.of);
  return gave == gave_at_.end() ? asked.at : std::max(asked.at, gave->second);
}

bool PieceRequests::arrived(const protocol::Piece& piece, PeerId from) {
  const auto at = asked_.find(piece);
  if (at == asked_.end() || at->second.of != from) return false;
  asked_.erase(at);
  absent_.erase(piece);
  gave_.insert(from);
  return true;
}

void PieceRequests::absent(const protocol::Piece& piece, PeerId from) {
  const auto at = asked_.find(piece);
  if (at == asked_.end() || at->second.of != from) return;
  asked_.erase(at);
  wanted_.insert(piece);
  absent_[piece].insert(from);
}

void PieceRequests::forget_asked(PeerId peer) {
  std::erase_if(asked_, [&](const auto& entry) {
    if (entry.second.of == peer) wanted_.insert(entry.first);
    return entry.second.of == peer;
  });
}

std::optional<protocol::Piece> PieceRequests::lost() const {
  if (sources_.empty()) return std::nullopt;
  for (const auto& [piece, absent] : absent_)
    if (std::ranges::includes(absent, sources_)) return piece;
  return std::nullopt;
}

void PieceRequests::forget_absences() { absent_.clear(); }

Time PieceRequests::next_due() const {
  Time due = paused_ ? free_at_ : kNever;
  for (const auto& [piece, asked] : asked_) due = std::min(due, silent_since(asked) + patience(piece));
  return due;
}

}  // namespace isthmus::router
