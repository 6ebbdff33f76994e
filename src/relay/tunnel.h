#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "protocol/endpoints.h"
#include "relay/pass.h"

namespace isthmus::relay {

// A relay that a worker may use.
struct RelayPass {
  std::string address;  // numeric, "ADDRESS:PORT"
  Pass pass;
  friend bool operator==(const RelayPass&, const RelayPass&) = default;
};

// A worker's end of relays: it stays registered at each of them, so that others reach it through any, and lends it
// loopback addresses through which it reaches others. ZeroMQ's sockets do not notice: their connections go over
// loopback, out to a relay, and from there to the other worker's tunnel and its sockets. One thread of its own.
class Tunnel {
 public:
  // `own`: this worker's sockets, to which calls of others are joined.
  static Result<std::unique_ptr<Tunnel>> open(const protocol::Endpoints& own);
  ~Tunnel();

  // The relays from now on, with passes that have not expired; connections that stand are left alone.
  void use(std::vector<RelayPass> relays);
  // Registers anew everywhere: this machine slept, or is somewhere else.
  void again();
  // Where to dial to get to this peer; the same for as long as the tunnel lives. Errors: no port is free.
  Result<protocol::Endpoints> towards(PeerId peer);

  struct Figures {
    std::uint64_t registered = 0;  // relays over which this worker can be called now
    std::uint64_t relays = 0;
    std::uint64_t bytes = 0;  // both ways
    std::string trouble;      // what the last attempt failed with, for people; empty: nothing
  };
  Figures figures() const;

 private:
  class Impl;
  explicit Tunnel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace isthmus::relay
