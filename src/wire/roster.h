#pragma once

#include <map>
#include <optional>

#include "base/ids.h"
#include "scheduler/view.h"

namespace isthmus {

// Which public key is which peer: the only keys that get a connection.
class Roster {
 public:
  void add(PeerId peer, const PublicKey& key) {
    if (const auto old = keys_.find(peer); old != keys_.end()) peers_.erase(old->second);
    keys_[peer] = key;
    peers_[key] = peer;
  }
  std::optional<PeerId> peer_of(const PublicKey& key) const {
    const auto at = peers_.find(key);
    return at == peers_.end() ? std::nullopt : std::optional(at->second);
  }

 private:
  std::map<PeerId, PublicKey> keys_;
  std::map<PublicKey, PeerId> peers_;
};

}  // namespace isthmus
