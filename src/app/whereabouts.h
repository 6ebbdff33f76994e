#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/endpoints.h"
#include "transport/dial_back.h"
#include "transport/keys.h"

namespace isthmus::app {

// Where each worker is, for the coordinator: on which network it is seen, and whether it can be dialled there. Who is
// seen on loopback is on this machine, and nobody is dialled back. One thread.
class Whereabouts {
 public:
  // `keys`: the coordinator's.
  explicit Whereabouts(const transport::KeyPair& keys) : keys_(keys) {}

  // It has dialled, from this numeric address.
  void seen(PeerId peer, const std::string& address);
  // Its sockets are these, by its own word, on its own network. Where it is, if that is known; otherwise it is being
  // found out, and poll() names it. Nothing for whoever has not dialled.
  std::optional<protocol::Location> find(PeerId peer, const protocol::Endpoints& said, const protocol::PublicKey& key);
  // Of whom more is known now.
  std::vector<PeerId> poll(Time now);
  Time next_due(Time now) const { return dial_back_ ? dial_back_->next_due(now) : kNever; }
  void forget(PeerId peer) { known_.erase(peer); }

 private:
  struct Known {
    std::string address;
    protocol::Endpoints said;
    std::optional<protocol::Location> location;
  };
  const transport::KeyPair keys_;
  std::map<PeerId, Known> known_;
  std::optional<transport::DialBack> dial_back_;  // once anybody is to be dialled
};

}  // namespace isthmus::app
