#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/endpoints.h"
#include "transport/keys.h"

namespace isthmus::transport {

// Whether a worker can be dialled where it is seen: connects to both of its sockets as its coordinator, which it lets
// in, and hangs up once each has shown, by CURVE's handshake, that it has the worker's key. Another machine at that
// address and port has not. One thread.
class DialBack {
 public:
  struct Options {
    KeyPair keys;  // the coordinator's
    Duration patience = seconds(3);
    std::size_t at_once = 64;  // others wait
  };
  explicit DialBack(const Options& options);
  ~DialBack();

  // Anew, if it is under way already.
  void begin(PeerId peer, const protocol::Endpoints& endpoints, const protocol::PublicKey& key);
  struct Result {
    PeerId peer;
    protocol::Endpoints endpoints;
    bool answered = false;
  };
  std::vector<Result> poll(Time now);
  // When to look again, if anything is under way: what it waits for wakes nobody.
  Time next_due(Time now) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace isthmus::transport
