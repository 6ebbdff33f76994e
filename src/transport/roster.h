#pragma once

#include <map>
#include <optional>

#include "base/ids.h"
#include "protocol/endpoints.h"

namespace isthmus::transport {

// Which public key is which peer: the only keys that get a connection.
class Roster {
 public:
  void add(PeerId peer, const protocol::PublicKey& key) {
    if (const auto old = keys_.find(peer); old != keys_.end()) peers_.erase(old->second);
    keys_[peer] = key;
    peers_[key] = peer;
  }
  void remove(PeerId peer) {
    if (const auto old = keys_.find(peer); old != keys_.end()) {
      peers_.erase(old->second);
      keys_.erase(old);
    }
  }
  bool knows(PeerId peer) const { return keys_.contains(peer); }
  std::optional<PeerId> peer_of(const protocol::PublicKey& key) const {
    const auto at = peers_.find(key);
    return at == peers_.end() ? std::nullopt : std::optional(at->second);
  }

 private:
  std::map<PeerId, protocol::PublicKey> keys_;
  std::map<protocol::PublicKey, PeerId> peers_;
};

}  // namespace isthmus::transport
