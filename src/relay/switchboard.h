#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/rate_limit.h"
#include "base/time.h"
#include "relay/hello.h"

namespace isthmus::relay {

// Who a relay joins to whom: who has registered, who calls, and how many streams each may have. A registered peer that
// comes again takes the place of what is left of it. Pure; streams are numbers that the caller gives. One thread.
class Switchboard {
 public:
  struct Options {
    std::size_t streams = 65'536;         // in all
    std::size_t streams_per_peer = 1024;  // a worker at the end of a pipeline has two for each of 383 neighbours
    Duration patience = seconds(10);      // a call that nobody accepts is given up
    // Calls of one peer to another: so many at once, and then one in so long. Two lanes are called at a time.
    std::int64_t calls = 8;
    Duration call_every = seconds(1);
  };
  explicit Switchboard(const Options& options) : options_(options) {}

  using Stream = std::uint64_t;
  using Peer = std::pair<std::uint64_t, PeerId>;  // of a run
  struct Say {
    Stream stream;
    Verdict verdict;  // kWelcome: it stays open
  };
  struct Tell {
    Stream stream;  // a registered one
    Ring ring;
  };
  // Both are welcomed, and are one from then on.
  struct Join {
    Stream caller, callee;
    Peer account;  // the caller's
  };
  struct HangUp {
    Stream stream;
  };
  using Effect = std::variant<Say, Tell, Join, HangUp>;
  using Effects = std::vector<Effect>;

  Effects hello(Stream stream, const Hello& hello, Time now);
  // It is gone, or what it was joined to is.
  void closed(Stream stream);
  Effects tick(Time now);
  Time next_due() const;

  std::size_t registered() const { return registered_.size(); }
  std::size_t streams() const { return account_.size(); }

 private:
  struct Call {
    Stream stream;
    Peer to;
    Time since{};
  };
  bool takes(Stream stream, const Peer& account);
  bool may_call(const Peer& from, const Peer& to, Time now);

  const Options options_;
  std::map<Peer, Stream> registered_;
  std::map<std::uint64_t, Call> calls_;
  std::map<Stream, Peer> account_;  // on whose a stream is: of a call, both its ends are the caller's
  std::map<Peer, std::size_t> streams_of_;
  std::map<std::pair<Peer, Peer>, RateLimit> limits_;  // of one peer to call another
  std::uint64_t last_call_ = 0;
};

}  // namespace isthmus::relay
