#include "router/downstream.h"

#include <algorithm>
#include <ranges>

namespace isthmus::router {

namespace {

constexpr Duration kRetryMin = std::chrono::milliseconds(20);
constexpr Duration kRetryMax = seconds(1);

}  // namespace

Downstream::Downstream(WorkerContext& context, StepRecords& records)
    : context_(context), records_(records), hops_(context.plan.routing, context.identity.replica) {}

void Downstream::settle_all() {
  for (auto& [m, record] : records_) settle(record);
}

void Downstream::view_changed(bool epoch_changed, Time now) {
  for (const auto newcomer : hops_.set_members(context_.successors(), now)) unprobed_.insert(newcomer);
  probe(now);
  if (epoch_changed) replace_lost_successors(now);
}

// A probe that is sent before there is a connection goes nowhere.
void Downstream::probe(Time now) {
  std::erase_if(unprobed_, [&](SessionId session) { return !context_.view.find(session); });
  for (const auto& member : context_.view.live)
    if (context_.connected.contains(member.peer)) probe(member.session, now);
}

void Downstream::probe(SessionId session, Time now) {
  if (unprobed_.erase(session) == 0) return;
  context_.send_to(session, protocol::Probe{context_.tag_to(session), static_cast<std::uint64_t>(now.count() / 1000)});
}

// The successor of these records died or was expelled. This holds also if its gradient has arrived: its replacement
// needs the input for its own contribution.
void Downstream::replace_lost_successors(Time now) {
  for (auto& [m, record] : records_) {
    if (record.successor != kNoSession && !context_.view.find(record.successor)) {
      settle(record);
      record.again = true;
      record.successor = kNoSession;
      record.hop = Hop::kHere;
    }
    if (context_.is_tail() || !record.forward_done()) continue;
    if (record.hop == Hop::kSearching) {
      send_if_nobody_holds(m, record, now);
      if (record.hop == Hop::kSearching) ask(m, record, now);
    } else if (record.successor == kNoSession && record.retry_due == kNever) {
      send(m, record, now);
    }
  }
}

void Downstream::forward(MicrobatchId m, StepRecord& record, Time now) {
  if (record.again)
    search(m, record, now);
  else
    send(m, record, now);
}

// -------------------------------------------------------------------------------------------------- answers

StepRecord* Downstream::answered(MicrobatchId m, std::uint32_t n) {
  const auto at = records_.find(m);
  return at == records_.end() || at->second.n != n ? nullptr : &at->second;
}

void Downstream::received(const protocol::Held& message, Time now) {
  const SessionId from = message.tag.from;
  StepRecord* record = answered(message.microbatch, message.n);
  if (record && record->hop == Hop::kSearching) {
    record->successor = from;
    record->hop = Hop::kHeld;
  }
  if (record && record->successor == from) {
    if (record->in_flight > 0) hops_.measured(from, record->in_flight, now - record->sent_at);
    settle(*record);
    if (record->hop == Hop::kSent) record->hop = Hop::kHeld;
    record->ask_due = wants_answer(message.microbatch, *record) ? now + 4 * context_.identity.ask_after : kNever;
  }
  hops_.receipt(from, message.load, now);
  if (message.load.slow) take_back(from, now);
}

void Downstream::received(const protocol::Receipt& message, Time now) {
  if (message.sent_us <= static_cast<std::uint64_t>(now.count() / 1000))
    hops_.measured(message.tag.from, 0, now - std::chrono::microseconds(message.sent_us));
  hops_.receipt(message.tag.from, message.load, now);
  if (message.load.slow) take_back(message.tag.from, now);
}

void Downstream::received(const protocol::Free& message, Time now) {
  StepRecord* record = answered(message.microbatch, message.n);
  if (!record) return;
  if (record->hop == Hop::kSearching) {
    record->answered_free.insert(message.tag.from);
    send_if_nobody_holds(message.microbatch, *record, now);
  } else if (record->successor == message.tag.from && record->hop != Hop::kCancelling) {
    send_again(message.microbatch, *record, now);
  }
}

bool Downstream::returned(StepRecord& record, SessionId from) {
  if (from != record.successor && record.hop != Hop::kSearching) return false;
  settle(record);
  record.successor = from;
  record.hop = Hop::kHeld;
  record.ask_due = kNever;
  return true;
}

void Downstream::received(const protocol::Cancelled& message, Time now) {
  hops_.receipt(message.tag.from, message.load, now);
  StepRecord* record = answered(message.microbatch, message.n);
  if (record && record->hop != Hop::kSearching && record->successor == message.tag.from)
    choose_another(message.microbatch, *record, message.tag.from, now);
  if (message.load.slow) take_back(message.tag.from, now);
}

void Downstream::received(const protocol::Busy& message, Time now) {
  received(protocol::Cancelled{message.tag, message.microbatch, message.n, message.load}, now);
}

void Downstream::received(const protocol::TooLate& message, Time) {
  StepRecord* record = answered(message.microbatch, message.n);
  if (!record || record->successor != message.tag.from) return;
  record->hop = Hop::kTooLate;
}

// ------------------------------------------------------------------------------------------ one microbatch

std::vector<SessionId> Downstream::suspected() const {
  std::vector<SessionId> sessions = context_.view.suspected;
  sessions.insert(sessions.end(), context_.view.leaving.begin(), context_.view.leaving.end());
  for (const protocol::Member* member : context_.successors())
    if (cut_.contains(member->peer)) sessions.push_back(member->session);
  return sessions;
}

void Downstream::send(MicrobatchId m, StepRecord& record, Time now, SessionId avoid) {
  record.hop = Hop::kHere;
  record.answered_free.clear();
  record.retry_due = kNever;
  const auto members = context_.next_stage(m);
  if (members.empty()) {
    record.successor = kNoSession;
    record.ask_due = kNever;
    return;  // the view that brings one comes back here
  }
  record.successor = hops_.choose(members, suspected(), record.sent.bytes(), now, avoid);
  record.hop = Hop::kSent;
  ++record.n;
  hops_.charge(record.successor, record.sent.bytes(), now);
  record.in_flight = hops_.bytes_in_flight();
  record.sent_at = now;
  send_again(m, record, now);
}

void Downstream::send_again(MicrobatchId m, StepRecord& record, Time now) {
  record.ask_due = now + context_.identity.ask_after;
  context_.send_to(record.successor,
                   protocol::Forward{context_.tag_to(record.successor), m, record.n, record.again, record.sent});
}

// The successor has answered, or will not any more.
void Downstream::settle(StepRecord& record) {
  if (record.in_flight == 0) return;
  hops_.confirmed(record.successor, record.sent.bytes());
  record.in_flight = 0;
}

// The successor does not hold the microbatch and never will under this n.
void Downstream::choose_another(MicrobatchId m, StepRecord& record, SessionId refuser, Time now) {
  // What it said last of its work does not count a microbatch that it let go; one that was on its way was charged on
  // top.
  if (record.in_flight > 0) hops_.give_back(refuser);
  settle(record);
  if (record.hop != Hop::kCancelling) record.refused.insert(refuser);
  record.successor = kNoSession;
  record.hop = Hop::kHere;
  record.ask_due = kNever;
  const bool all_refused = std::ranges::all_of(
      context_.next_stage(m), [&](const protocol::Member* member) { return record.refused.contains(member->session); });
  if (!all_refused) {
    send(m, record, now, refuser);
    return;
  }
  record.refused.clear();
  const Time soonest = hops_.finish(refuser, 0, now);
  record.retry_due = now + std::clamp<Duration>(soonest - now, kRetryMin, kRetryMax);
}

// A replica that got slow after it was chosen: another that would be done in half the time gets the microbatch, unless
// the forward pass has begun.
void Downstream::cancel_if_slow(MicrobatchId m, StepRecord& record, Time now) {
  if (context_.plan.routing != protocol::Routing::kFinishTime) return;
  if ((record.hop != Hop::kSent && record.hop != Hop::kHeld) || record.gradient_here() || !context_.training(m) ||
      now - record.sent_at < 2 * context_.identity.ask_after)
    return;
  const auto members = context_.next_stage(m);
  if (members.size() < 2 || !context_.view.find(record.successor)) return;
  const SessionId other = hops_.choose(members, suspected(), record.sent.bytes(), now, record.successor);
  const Duration here = hops_.finish(record.successor, 0, now) - now;
  const Duration there = hops_.finish(other, record.sent.bytes(), now) - now;
  if (2 * there >= here) return;
  record.hop = Hop::kCancelling;
  context_.send_to(record.successor, protocol::Cancel{context_.tag_to(record.successor), m, record.n});
}

// A successor became several times slower: what it has not begun, the last first, goes to whoever would be done with it
// sooner, the way there and back included. It says itself what it has begun (TooLate).
void Downstream::take_back(SessionId from, Time now) {
  if (context_.plan.routing != protocol::Routing::kFinishTime || !context_.view.find(from)) return;
  HopChoice then = hops_;  // as things will be once all of that has gone elsewhere
  for (auto& [m, record] : records_ | std::views::reverse) {
    if (record.successor != from || record.hop == Hop::kTooLate || record.gradient_here()) continue;
    const auto members = context_.next_stage(m);
    if (members.size() < 2) continue;
    const SessionId other = then.choose(members, suspected(), record.sent.bytes(), now, from);
    const Time here = then.finish(from, 0, now) - then.service(from),
               there = then.finish(other, record.sent.bytes(), now) + then.round_trip(from);
    if (record.hop != Hop::kCancelling && (other == from || there >= here)) return;
    then.give_back(from);
    then.charge(other, record.sent.bytes(), now);
    if (record.hop == Hop::kCancelling) continue;
    record.hop = Hop::kCancelling;
    ask(m, record, now);
  }
}

void Downstream::search(MicrobatchId m, StepRecord& record, Time now) {
  if (record.hop != Hop::kSearching) {
    record.hop = Hop::kSearching;
    record.answered_free.clear();
    ++record.n;
  }
  ask(m, record, now);
}

// Free is a promise: its sender refuses from now on what a dead holder may still have in flight. So if every live
// member of the next stage has given it, the microbatch can go to any of them.
void Downstream::send_if_nobody_holds(MicrobatchId m, StepRecord& record, Time now) {
  const auto members = context_.next_stage(m);
  const bool nobody = !members.empty() && std::ranges::all_of(members, [&](const protocol::Member* member) {
    return record.answered_free.contains(member->session);
  });
  if (nobody) send(m, record, now);
}

bool Downstream::wants_answer(MicrobatchId m, const StepRecord& record) const {
  if (context_.is_tail()) return false;
  switch (record.hop) {
    case Hop::kHere:
      return false;
    case Hop::kHeld:
    case Hop::kTooLate:
      return context_.training(m) && !record.gradient_here();
    default:
      return true;
  }
}

void Downstream::ask(MicrobatchId m, StepRecord& record, Time now) {
  record.ask_due = now + context_.identity.ask_after;
  if (record.hop == Hop::kSearching) {
    for (const protocol::Member* member : context_.next_stage(m))
      if (!record.answered_free.contains(member->session))
        context_.send_to(member->session, protocol::Ask{context_.tag_to(member->session), m, record.n});
  } else if (record.hop == Hop::kCancelling) {
    context_.send_to(record.successor, protocol::Cancel{context_.tag_to(record.successor), m, record.n});
  } else {
    context_.send_to(record.successor, protocol::Ask{context_.tag_to(record.successor), m, record.n});
  }
}

// --------------------------------------------------------------------------------------------------- timers

void Downstream::peer_connected(PeerId peer, Time now) {
  cut_.erase(peer);
  const auto newcomer = std::ranges::find(context_.view.live, peer, &protocol::Member::peer);
  if (context_.live() && newcomer != context_.view.live.end()) probe(newcomer->session, now);
  for (auto& [m, record] : records_) {
    if (!wants_answer(m, record)) continue;
    const protocol::Member* member = context_.view.find(record.successor);
    if (record.hop == Hop::kSearching || (member && member->peer == peer)) ask(m, record, now);
  }
}

void Downstream::tick(Time now) {
  for (auto& [m, record] : records_) {
    if (record.retry_due <= now) send(m, record, now);
    if (record.ask_due > now) continue;
    if (wants_answer(m, record)) {
      cancel_if_slow(m, record, now);
      ask(m, record, now);
    } else {
      record.ask_due = kNever;
    }
  }
}

Time Downstream::next_due() const {
  Time due = kNever;
  for (const auto& [m, record] : records_) due = std::min({due, record.ask_due, record.retry_due});
  return due;
}

}  // namespace isthmus::router
