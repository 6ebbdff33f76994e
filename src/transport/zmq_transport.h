#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "transport/keys.h"
#include "transport/roster.h"
#include "transport/transport.h"

namespace isthmus::transport {

// The real links: ZeroMQ over TCP with CURVE from the first byte. Only keys of the roster get a connection; who a
// frame comes from is decided by the key alone.
//
// Two sockets per pair of peers, control and bulk, so that a heartbeat never stands behind a tensor. The side that
// was told to connect() uses a DEALER for each; the other answers through the ROUTERs it binds. DEALERs carry no
// routing id of their own choice, so nobody can take another's place in a ROUTER.
class ZmqTransport final : public Transport {
 public:
  struct Options {
    PeerId self;
    KeyPair keys;
    std::uint64_t run_id = 0;
    Roster roster;
    std::string bind_host = "127.0.0.1";
    std::uint16_t port = 0;  // control; bulk takes the next one. 0: any two
  };
  // Binds. Errors name address, port and what to do.
  static Result<std::unique_ptr<ZmqTransport>> open(Options options);
  ~ZmqTransport() override;

  protocol::Endpoints endpoints() const;
  void allow(PeerId peer, const protocol::PublicKey& key);
  // Its key is let in no longer, and what still comes from it is dropped.
  void shut_out(PeerId peer);
  // Connects, and reconnects for ever. A second call for a peer with the same endpoints and key changes nothing.
  void connect(PeerId peer, const protocol::Endpoints& endpoints, const protocol::PublicKey& key);

  // Makes every connection of its own anew, at the next poll(): this machine may have slept, or be somewhere else.
  void dial_again();

  void send(Frame frame) override;
  std::vector<TransportEvent> poll(Time now) override;
  Time next_due() const override;
  std::uint64_t queued_bytes() const override;
  // Blocks until a frame arrives, a full socket has room, one of the descriptors (-1: none) is readable, or the time is
  // over.
  void wait(Duration longest, std::span<const int> descriptors);

  // Connections that others tried to make and did not get, attempt by attempt: strangers, or peers that are not known
  // yet. Whoever tells people of them should not do so one by one.
  struct Refused {
    std::uint64_t keys = 0;        // not in the roster
    std::uint64_t handshakes = 0;  // another mechanism, this server's key unknown, or no ZeroMQ at all
    std::uint64_t total() const { return keys + handshakes; }
  };
  Refused refused() const;
  // A server refused this process's key, or is not the one whose key was given.
  std::uint64_t failed_handshakes() const;

 private:
  class Impl;
  explicit ZmqTransport(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace isthmus::transport
