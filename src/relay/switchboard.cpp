#include "relay/switchboard.h"

#include <algorithm>

namespace isthmus::relay {

bool Switchboard::takes(Stream stream, const Peer& peer) {
  std::size_t& mine = streams_of_[peer];
  if (owner_.size() >= options_.streams || mine >= options_.streams_per_peer) return false;
  ++mine;
  owner_[stream] = peer;
  return true;
}

Switchboard::Effects Switchboard::hello(Stream stream, const Hello& hello, Time now) {
  const Peer peer{hello.run_id, hello.from};
  if (!takes(stream, peer)) return {Say{stream, Verdict::kTooMany}};
  switch (hello.kind) {
    case Kind::kRegister: {
      Effects effects;
      // Half of a connection that broke may be left here for minutes.
      if (const auto before = registered_.find(peer); before != registered_.end())
        effects.push_back(HangUp{before->second});
      registered_[peer] = stream;
      effects.push_back(Say{stream, Verdict::kWelcome});
      return effects;
    }
    case Kind::kCall: {
      const Peer to{hello.run_id, hello.to};
      const auto there = registered_.find(to);
      if (there == registered_.end()) return {Say{stream, Verdict::kAbsent}};
      calls_[++last_call_] = Call{stream, to, now};
      return {Tell{there->second, {hello.lane, hello.from, last_call_}}};
    }
    case Kind::kAccept: {
      const auto call = calls_.find(hello.call);
      if (call == calls_.end() || call->second.to != peer) return {Say{stream, Verdict::kGone}};
      const Stream caller = call->second.stream;
      calls_.erase(call);
      return {Join{caller, stream, owner_.at(caller)}};
    }
  }
  return {Say{stream, Verdict::kOtherVersion}};
}

void Switchboard::closed(Stream stream) {
  const auto owner = owner_.find(stream);
  if (owner == owner_.end()) return;
  if (const auto at = registered_.find(owner->second); at != registered_.end() && at->second == stream)
    registered_.erase(at);
  std::erase_if(calls_, [&](const auto& call) { return call.second.stream == stream; });
  if (const auto count = streams_of_.find(owner->second); --count->second == 0) streams_of_.erase(count);
  owner_.erase(owner);
}

Switchboard::Effects Switchboard::tick(Time now) {
  Effects effects;
  for (auto call = calls_.begin(); call != calls_.end();)
    if (now - call->second.since >= options_.patience) {
      effects.push_back(Say{call->second.stream, Verdict::kAbsent});
      call = calls_.erase(call);
    } else {
      ++call;
    }
  return effects;
}

Time Switchboard::next_due() const {
  Time due = kNever;
  for (const auto& [number, call] : calls_) due = std::min(due, call.since + options_.patience);
  return due;
}

}  // namespace isthmus::relay
