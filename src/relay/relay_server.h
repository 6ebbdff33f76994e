#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "relay/pass.h"
#include "relay/switchboard.h"

namespace isthmus::relay {

// Joins the TCP streams of workers that nobody can dial. It does not know what they say: CURVE goes from end to end, so
// it sees ciphertext, and who talks to whom how much. One thread of its own, from open() to the destructor.
class RelayServer {
 public:
  struct Options {
    std::string host = "127.0.0.1";  // an IPv6 address may have brackets
    std::uint16_t port = 0;          // 0: any
    Key key{};
    Switchboard::Options limits{};
    double bytes_per_second = 0;             // of each peer, all its streams together; 0: as much as comes
    std::size_t strangers_per_address = 64;  // connections that have not shown a pass yet
    std::size_t strangers = 4096;
  };
  // Listens; errors name address, port and what to do.
  static Result<std::unique_ptr<RelayServer>> open(Options options);
  ~RelayServer();

  std::uint16_t port() const;
  struct Figures {
    std::uint64_t registered = 0;  // peers that can be called now
    std::uint64_t streams = 0;     // open now, joined or not
    std::uint64_t joined = 0;      // pairs since the start
    std::uint64_t bytes = 0;       // that came through, both ways
    std::uint64_t refused = 0;     // connections since the start
  };
  // Any thread.
  Figures figures() const;

 private:
  class Impl;
  explicit RelayServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace isthmus::relay
