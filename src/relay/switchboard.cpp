#include "relay/switchboard.h"

#include <algorithm>

namespace isthmus::relay {

bool Switchboard::takes(Stream stream, const Peer& account) {
  const auto mine = streams_of_.find(account);
  if (account_.size() >= options_.streams || (mine != streams_of_.end() && mine->second >= options_.streams_per_peer))
    return false;
  ++streams_of_[account];
  account_[stream] = account;
  return true;
}

bool Switchboard::may_call(const Peer& from, const Peer& to, Time now) {
  return limits_[{from, to}].takes({options_.calls, options_.call_every}, now);
}

Switchboard::Effects Switchboard::hello(Stream stream, const Hello& hello, Time now) {
  const Peer peer{hello.run_id, hello.from};
  switch (hello.kind) {
    case Kind::kRegister: {
      if (!takes(stream, peer)) return {Say{stream, Verdict::kTooMany}};
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
      // Every call makes the other dial: nobody is made to without end.
      if (!may_call(peer, to, now) || !takes(stream, peer)) return {Say{stream, Verdict::kTooMany}};
      calls_[++last_call_] = Call{stream, to, now};
      return {Tell{there->second, {hello.lane, hello.from, last_call_}}};
    }
    case Kind::kAccept: {
      const auto call = calls_.find(hello.call);
      if (call == calls_.end() || call->second.to != peer) return {Say{stream, Verdict::kGone}};
      const Stream caller = call->second.stream;
      const Peer account = account_.at(caller);
      calls_.erase(call);
      if (!takes(stream, account)) return {Say{stream, Verdict::kTooMany}, Say{caller, Verdict::kTooMany}};
      return {Join{caller, stream, account}};
    }
  }
  return {Say{stream, Verdict::kOtherVersion}};
}

void Switchboard::closed(Stream stream) {
  const auto account = account_.find(stream);
  if (account == account_.end()) return;
  if (const auto at = registered_.find(account->second); at != registered_.end() && at->second == stream)
    registered_.erase(at);
  std::erase_if(calls_, [&](const auto& call) { return call.second.stream == stream; });
  if (const auto count = streams_of_.find(account->second); --count->second == 0) streams_of_.erase(count);
  account_.erase(account);
}

Switchboard::Effects Switchboard::tick(Time now) {
  Effects effects;
  std::erase_if(limits_, [&](const auto& entry) { return entry.second.is_full(now); });
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
