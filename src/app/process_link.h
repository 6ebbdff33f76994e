#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "config/run_config.h"
#include "scheduler/plan.h"
#include "wire/keys.h"
#include "wire/messenger.h"
#include "wire/roster.h"
#include "wire/shaped_transport.h"
#include "wire/zmq_transport.h"

namespace isthmus {

// A process's end of all its links: sockets, shaping if the run asks for it, messages on top. One thread.
class ProcessLink {
 public:
  struct Options {
    PeerId self;
    KeyPair keys;
    Roster roster;
    std::string host = "127.0.0.1";
    std::uint16_t port = 0;  // control; bulk is the next one. 0: any
    std::uint16_t bulk_port = 0;
  };
  static Result<std::unique_ptr<ProcessLink>> open(const RunConfig& run, const Plan& plan, Options options);

  struct Arrival {
    PeerId from;
    Message message;
  };
  struct Turn {
    std::vector<Arrival> messages;
    std::vector<PeerId> connected;
    std::vector<PeerId> disconnected;
    // When the transport was looked at; what is sent before the next turn is taken to leave then.
    Time now{};
  };
  // Waits until something arrives, `fd` becomes readable (-1: none) or `until`, then moves what can be moved.
  Turn turn(Time until, int fd);
  void send(PeerId to, const Message& message);
  void connect(PeerId peer, const Endpoints& endpoints, const PublicKey& key);
  void allow(PeerId peer, const PublicKey& key);
  // Keeps moving frames until everything sent has left or `until`.
  void flush(Time until);
  // Waits until every peer has closed its connections, at most until `until`. A socket that loses its connection drops
  // what has arrived and was not read yet: only a peer that has gone surely had the last message.
  void wait_until_left(Time until);

  Endpoints endpoints() const { return sockets_->endpoints(); }
  const Messenger& messenger() const { return *messenger_; }
  const ZmqTransport& sockets() const { return *sockets_; }

 private:
  ProcessLink() = default;
  std::unique_ptr<ZmqTransport> sockets_;
  std::unique_ptr<ShapedTransport> shaped_;  // null: the links are as they are
  Transport* transport_ = nullptr;
  std::unique_ptr<Messenger> messenger_;
  std::set<PeerId> connected_;
};

}  // namespace isthmus
