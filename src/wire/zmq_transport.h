#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "wire/keys.h"
#include "wire/roster.h"
#include "wire/transport.h"

namespace isthmus {

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
    std::uint16_t bulk_port = 0;  // 0: as above
  };
  // Binds. A port in use, or a host that is not this machine's, is an error that says so.
  static Result<std::unique_ptr<ZmqTransport>> open(Options options);
  ~ZmqTransport() override;

  Endpoints endpoints() const;
  void allow(PeerId peer, const PublicKey& key);
  // Connects, and reconnects for ever. A second call for a peer with the same endpoints and key changes nothing.
  void connect(PeerId peer, const Endpoints& endpoints, const PublicKey& key);

  void send(Frame frame) override;
  std::vector<TransportEvent> poll(Time now) override;
  Time next_due() const override;
  std::uint64_t queued_bytes() const override;
  // Blocks until a frame arrives, a full socket has room, `fd` (-1: none) is readable, or the time is over.
  void wait(Duration longest, int fd);

  // Connections refused because their key is not in the roster.
  std::uint64_t refused_keys() const;
  // A server refused this process's key, or is not the one whose key was given.
  std::uint64_t failed_handshakes() const;

 private:
  class Impl;
  explicit ZmqTransport(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace isthmus
