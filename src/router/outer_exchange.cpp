#include "router/outer_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/digest.h"

namespace isthmus::router {

namespace {

// In front of every update: the microbatches it is worth.
constexpr std::uint64_t kWeightBytes = 4;
// Slices that are fetched from their owners at a time: each has pieces of its own under way.
constexpr std::size_t kSlicesAtOnce = 2;
constexpr std::size_t kWaitingMax = 4096;
// A sibling that nothing but it is waited for, and that is silent for so long, is as good as cut off.
constexpr Duration kStalled = seconds(30);

SharedBytes piece_of(const SharedBytes& whole, std::uint32_t index) {
  const std::size_t first = std::min<std::size_t>(std::size_t{index} * protocol::kPieceBytes, whole->size());
  return whole.part(first, std::min<std::size_t>(protocol::kPieceBytes, whole->size() - first));
}

// Of an update that does not count there is nothing but a weight of 0 in front of what is not there.
bool is_weightless(ByteView update) {
  return update.size() >= kWeightBytes &&
         std::ranges::all_of(update.first(kWeightBytes), [](std::uint8_t byte) { return byte == 0; });
}

SharedBytes joined_in_order(std::map<std::uint32_t, SharedBytes>& pieces) {
  std::vector<SharedBytes> all;
  for (auto& [index, piece] : pieces) all.push_back(std::move(piece));
  pieces.clear();
  return joined(all);
}

}  // namespace

void OuterExchange::forget() {
  version_ = 0;
  own_.clear();
  siblings_.clear();
  slices_.clear();
}

// An agreement is an update without its weight.
std::uint64_t OuterExchange::agreement_bytes(std::uint32_t slice) const { return slice_bytes(slice) - kWeightBytes; }

std::vector<SessionId> OuterExchange::members() const {
  std::vector<SessionId> sessions;
  for (const protocol::Member* member : context_.own_stage()) sessions.push_back(member->session);
  return sessions;
}

std::vector<SessionId> OuterExchange::owners(std::uint32_t slice) const {
  std::vector<SessionId> all = slices_[slice].members;
  const std::size_t n = all.size();
  if (!has_owners(slice)) return all;
  const std::size_t first = slice % n, second = (first + 1 + slice / n % (n - 1)) % n;
  return {all[first], all[second]};
}

bool OuterExchange::owns(std::uint32_t slice, SessionId session) const {
  const auto all = owners(slice);
  return std::ranges::find(all, session) != all.end();
}

OuterExchange::Sibling& OuterExchange::sibling(SessionId session) {
  return siblings_.try_emplace(session, context_).first->second;
}

SharedBytes OuterExchange::update_of(SessionId session, std::uint32_t slice) const {
  if (session == context_.session) return own_.empty() ? nullptr : own_[slice];
  const auto from = siblings_.find(session);
  if (from == siblings_.end()) return nullptr;
  const auto update = from->second.updates.find(slice);
  return update == from->second.updates.end() ? nullptr : update->second.whole;
}

void OuterExchange::accuse(SessionId session, std::string what) {
  if (session == context_.session) return;
  // One is enough.
  if (std::ranges::find(offences_, session, &protocol::Offence::session) == offences_.end())
    offences_.push_back({session, version_, std::move(what)});
}

void OuterExchange::begin(std::uint64_t version) {
  forget();
  version_ = version;
  offences_.clear();
  for (std::size_t s = 0; s < update_bytes(version).size(); ++s) slices_.emplace_back(context_);
  context_.run(protocol::RunUpdate{version});
}

void OuterExchange::pursue(std::uint64_t version, Time now) {
  if (version_ != version) begin(version);
  std::erase_if(siblings_, [&](const auto& sibling) { return !context_.view.find(sibling.first); });
  for (std::uint32_t s = 0; s < slices_.size(); ++s) {
    adopt_members(s);
    want(s);
    settle(s);
  }
  ask(now);
  serve();
}

void OuterExchange::adopt_members(std::uint32_t slice) {
  Slice& s = slices_[slice];
  if (s.members == members()) return;
  s.members = members();
  s.requests.clear();
  s.agreement = {};
  s.number = 0;
  s.asked = s.disputed = s.settled = false;
  s.made = nullptr;
  s.digest.clear();
  for (auto& [session, sibling] : siblings_) sibling.verdicts.erase(slice);
}

void OuterExchange::want(std::uint32_t slice) {
  Slice& s = slices_[slice];
  const bool own = owns(slice, context_.session);
  const protocol::Piece first{protocol::PieceKind::kOwnUpdate, version_, 0, 0, slice};
  if (own || s.disputed)
    for (const SessionId session : s.members)
      if (session != context_.session && !update_of(session, slice) && sibling(session).updates[slice].pieces.empty())
        sibling(session).requests.want(first);
  if (!has_owners(slice)) return;
  for (const SessionId owner : owners(slice))
    if (owner != context_.session && !sibling(owner).verdicts.contains(slice))
      sibling(owner).requests.want({protocol::PieceKind::kVerdict, version_, 0, 0, slice});
  if (own || s.disputed || s.agreement.whole) return;
  for (std::uint32_t i = 0; i < protocol::piece_count(agreement_bytes(slice)); ++i)
    if (!s.agreement.pieces.contains(i)) s.requests.want({protocol::PieceKind::kAgreement, version_, 0, i, slice});
}

void OuterExchange::settle(std::uint32_t slice) {
  Slice& s = slices_[slice];
  if (s.settled || s.asked) return;
  if (owns(slice, context_.session) || s.disputed) {
    protocol::RunAgree agree{version_, slice, 0, {}};
    for (const SessionId session : s.members) {
      const SharedBytes update = update_of(session, slice);
      if (!update) return;
      agree.updates.push_back(update);
    }
    s.asked = true;
    s.number = agree.number = ++agreements_;
    context_.run(std::move(agree));
    return;
  }
  if (!s.agreement.whole) return;
  // What one owner made of it is compared with what the other one says, unless that one is not there any more.
  for (const SessionId owner : owners(slice))
    if (!siblings_.at(owner).verdicts.contains(slice) && !context_.view.suspects(owner)) return;
  s.asked = true;
  s.number = ++agreements_;
  context_.run(protocol::RunTake{version_, slice, s.number, s.agreement.whole});
}

// Owners whose word differs from each other's, or from what was made here.
void OuterExchange::compare(std::uint32_t slice) {
  Slice& s = slices_[slice];
  for (const SessionId owner : owners(slice)) {
    const auto at = siblings_.find(owner);
    if (at == siblings_.end() || !at->second.verdicts.contains(slice)) continue;
    const std::string& verdict = at->second.verdicts.at(slice);
    const bool made_here = s.settled && (s.disputed || owns(slice, context_.session));
    if (made_here && verdict != s.digest) {
      accuse(owner, fmt::format("what it made of slice {} is not what the updates add up to", slice));
    } else if (!made_here && !s.digest.empty() && verdict != s.digest && !s.disputed &&
               !owns(slice, context_.session)) {
      s.disputed = true;
      s.asked = s.settled = false;
      s.number = 0;
      s.requests.clear();
    } else if (!made_here && s.digest.empty()) {
      s.digest = verdict;
    }
  }
}

void OuterExchange::ask(Time now) {
  for (const protocol::Member* member : context_.own_stage())
    if (member->session != context_.session) {
      Sibling& from = sibling(member->session);
      if (from.heard == Time{}) from.heard = now;
      from.requests.ask({member}, now);
    }
  std::size_t under_way = 0;
  for (std::uint32_t slice = 0; slice < slices_.size() && under_way < kSlicesAtOnce; ++slice) {
    Slice& s = slices_[slice];
    if (s.requests.empty()) continue;
    ++under_way;
    std::vector<const protocol::Member*> sources;
    for (const SessionId owner : owners(slice))
      if (const protocol::Member* member = context_.view.find(owner); member && !context_.view.suspects(owner))
        sources.push_back(member);
    s.requests.ask(sources, now);
  }
}

void OuterExchange::updated(protocol::UpdateDone done, Time now) {
  if (done.version != version_ || done.updates.size() != slices_.size()) return;
  own_ = std::move(done.updates);
  pursue(version_, now);
}

void OuterExchange::agreed(protocol::AgreeDone done, Time now) {
  if (done.version != version_ || done.slice >= slices_.size() || slices_[done.slice].number != done.number) return;
  Slice& s = slices_[done.slice];
  s.asked = false;
  if (!done.error.empty()) {
    // Only what another one made can be none.
    s.disputed = true;
    s.number = 0;
    s.requests.clear();
  } else {
    s.settled = true;
    s.made = std::move(done.agreement);
    s.digest = std::move(done.digest);
    for (std::size_t i = 0; i < done.offences.size() && i < s.members.size(); ++i)
      if (!done.offences[i].empty()) accuse(s.members[i], done.offences[i]);
    compare(done.slice);
  }
  pursue(version_, now);
}

bool OuterExchange::received(const protocol::Fetch& fetch, PeerId from, std::uint64_t version, Time now) {
  const protocol::Member* asker = context_.view.find(fetch.from);
  if (!asker || asker->peer != from || asker->stage != context_.identity.stage || fetch.to != context_.session ||
      fetch.timeline != context_.view.timeline() || fetch.piece.slice >= update_bytes(fetch.piece.version).size())
    return false;
  // One that has seen the commit may ask before this worker has.
  if (fetch.piece.version != version && fetch.piece.version != version + 1) return false;
  if (!answer(fetch, *asker) && waiting_.size() < kWaitingMax) waiting_[{fetch.from, fetch.piece}] = fetch;
  if (version_ == version) pursue(version, now);
  return true;
}

bool OuterExchange::answer(const protocol::Fetch& fetch, const protocol::Member& asker) {
  const protocol::Piece& piece = fetch.piece;
  if (version_ == 0 || piece.version != version_ || piece.slice >= slices_.size()) return false;
  protocol::Chunk chunk{context_.session, fetch.from, context_.view.timeline(), piece, "", {}, {}};
  const Slice& s = slices_[piece.slice];
  if (piece.kind == protocol::PieceKind::kOwnUpdate) {
    if (own_.empty()) return false;
    chunk.tensor.values = piece_of(own_[piece.slice], piece.index);
  } else {
    // Of the same members: whoever was told of others since then asks again.
    if (!s.settled || !owns(piece.slice, context_.session) || s.members != members()) return false;
    chunk.digest = s.digest;
    if (piece.kind == protocol::PieceKind::kAgreement) chunk.tensor.values = piece_of(s.made, piece.index);
  }
  context_.run(protocol::SendMessage{asker.peer, std::move(chunk)});
  return true;
}

void OuterExchange::serve() {
  std::erase_if(waiting_, [&](const auto& waiting) {
    const protocol::Fetch& fetch = waiting.second;
    const protocol::Member* asker = context_.view.find(fetch.from);
    return !asker || fetch.piece.version < version_ || answer(fetch, *asker);
  });
}

bool OuterExchange::received(const protocol::Chunk& chunk, PeerId from, Time now) {
  const protocol::Piece& piece = chunk.piece;
  const auto at = siblings_.find(chunk.from);
  if (version_ == 0 || piece.version != version_ || piece.slice >= slices_.size() || at == siblings_.end())
    return false;
  Sibling& source = at->second;
  Slice& s = slices_[piece.slice];
  const std::uint64_t size = chunk.tensor.values->size();
  const std::uint64_t begins = std::uint64_t{piece.index} * protocol::kPieceBytes;
  const auto fits = [&](std::uint64_t whole) {
    return begins < whole && begins + size == std::min(whole, begins + protocol::kPieceBytes);
  };
  if (piece.kind == protocol::PieceKind::kVerdict) {
    if (!source.requests.arrived(piece, from)) return false;
    source.verdicts[piece.slice] = chunk.digest;
  } else if (piece.kind == protocol::PieceKind::kOwnUpdate) {
    const bool weightless = piece.index == 0 && size == kWeightBytes;
    if ((!weightless && !fits(slice_bytes(piece.slice))) || !source.requests.arrived(piece, from)) return false;
    Arriving& update = source.updates[piece.slice];
    update.pieces[piece.index] = chunk.tensor.values;
    const std::uint32_t all = weightless ? 1 : protocol::piece_count(slice_bytes(piece.slice));
    if (piece.index == 0)
      for (std::uint32_t i = 1; i < all; ++i)
        source.requests.want({protocol::PieceKind::kOwnUpdate, version_, 0, i, piece.slice});
    if (update.pieces.size() == all) {
      update.whole = joined_in_order(update.pieces);
      if (is_weightless(*update.whole)) update.whole = share(Bytes(kWeightBytes, 0));
    }
  } else {
    if (!fits(agreement_bytes(piece.slice)) || !s.requests.arrived(piece, from)) return false;
    source.verdicts[piece.slice] = chunk.digest;
    s.agreement.pieces[piece.index] = chunk.tensor.values;
    if (s.agreement.pieces.size() == protocol::piece_count(agreement_bytes(piece.slice))) {
      const SharedBytes whole = joined_in_order(s.agreement.pieces);
      if (digest_hex(*whole) == chunk.digest)
        s.agreement.whole = whole;
      else
        s.disputed = true;
    }
  }
  source.heard = now;
  compare(piece.slice);
  pursue(version_, now);
  return true;
}

void OuterExchange::forget_asked(PeerId peer) {
  for (auto& [session, sibling] : siblings_) sibling.requests.forget_asked(peer);
  for (auto& slice : slices_) slice.requests.forget_asked(peer);
}

bool OuterExchange::complete() const {
  const auto all = members();
  return version_ != 0 && std::ranges::all_of(slices_, [&](const Slice& s) { return s.settled && s.members == all; });
}

std::string OuterExchange::waiting_for() const {
  if (own_.empty()) return "its own update";
  for (std::uint32_t slice = 0; slice < slices_.size(); ++slice)
    for (const SessionId session : slices_[slice].members)
      if (owns(slice, context_.session) && !update_of(session, slice))
        if (const protocol::Member* member = context_.view.find(session))
          return fmt::format("the update of worker {}", member->peer);
  return "what its siblings agree on";
}

std::vector<SessionId> OuterExchange::stalled(Time now) const {
  std::vector<SessionId> sessions;
  if (!context_.view.preparing || complete()) return sessions;
  for (const auto& [session, sibling] : siblings_)
    if (context_.view.find(session) && !sibling.requests.empty() && now - sibling.heard >= kStalled)
      sessions.push_back(session);
  return sessions;
}

std::vector<SharedBytes> OuterExchange::outcome() const {
  std::vector<SharedBytes> parts;
  for (std::uint32_t slice = 0; slice < slices_.size(); ++slice)
    if (!context_.plan.sparse_sync(version_))
      parts.push_back(slices_[slice].made);
    else
      for (const SessionId session : slices_[slice].members) parts.push_back(update_of(session, slice));
  return parts;
}

Time OuterExchange::next_due() const {
  Time due = kNever;
  for (const auto& [session, sibling] : siblings_) due = std::min(due, sibling.requests.next_due());
  for (const auto& slice : slices_) due = std::min(due, slice.requests.next_due());
  return due;
}

}  // namespace isthmus::router
