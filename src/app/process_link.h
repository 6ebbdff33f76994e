#pragma once

#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "protocol/plan.h"
#include "spec/run_config.h"
#include "transport/keys.h"
#include "transport/roster.h"
#include "transport/shaped_transport.h"
#include "transport/zmq_transport.h"
#include "wire/messenger.h"

namespace isthmus::app {

// A process's end of all its links: sockets, shaping if the run asks for it, messages on top. One thread.
class ProcessLink {
 public:
  struct Options {
    PeerId self;
    transport::KeyPair keys;
    transport::Roster roster;
    std::string host = "127.0.0.1";
    std::uint16_t port = 0;  // control; bulk is the next one. 0: any
  };
  static Result<std::unique_ptr<ProcessLink>> open(const spec::RunConfig& run, const protocol::Plan& plan,
                                                   Options options);

  struct Arrival {
    PeerId from;
    protocol::Message message;
  };
  struct Turn {
    std::vector<Arrival> messages;
    std::vector<transport::PeerConnected> connected;
    std::vector<PeerId> disconnected;
    bool slept = false;  // this machine: every connection is being made anew
    // When the transport was looked at; what is sent before the next turn is taken to leave then.
    Time now{};
  };
  // Waits until something arrives, one of the descriptors becomes readable (-1: none), a signal comes or `until`, then
  // moves what can be moved.
  Turn turn(Time until, std::span<const int> descriptors);
  void send(PeerId to, const protocol::Message& message);
  void connect(PeerId peer, const protocol::Endpoints& endpoints, const protocol::PublicKey& key);
  void allow(PeerId peer, const protocol::PublicKey& key);
  void shut_out(PeerId peer);
  // Keeps moving frames until everything sent has left or `until`.
  void flush(Time until);
  // Waits until every peer has closed its connections, at most until `until`. A socket that loses its connection drops
  // what has arrived and was not read yet: only a peer that has gone surely had the last message.
  void wait_until_left(Time until);

  protocol::Endpoints endpoints() const { return sockets_->endpoints(); }
  const wire::Messenger& messenger() const { return *messenger_; }
  const transport::ZmqTransport& sockets() const { return *sockets_; }

 private:
  ProcessLink() = default;
  std::unique_ptr<transport::ZmqTransport> sockets_;
  std::unique_ptr<transport::ShapedTransport> shaped_;  // null: the links are as they are
  transport::Transport* transport_ = nullptr;
  std::unique_ptr<wire::Messenger> messenger_;
  std::set<PeerId> connected_;
};

}  // namespace isthmus::app
