#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/result.h"

namespace isthmus::relay {

// What a relay and the coordinators that send workers to it share.
using Key = std::array<std::uint8_t, 32>;
Key new_key();
// A text file readable by its owner only (0600); made if it is not there yet.
Result<Key> keep_key(const std::string& path);

// Lets one peer of one run use a relay for a while. The secret follows from the relay's key and the rest, so a relay
// keeps no list; it goes from the coordinator to the worker over an encrypted connection and never to the relay.
struct Pass {
  std::uint64_t run_id = 0;
  PeerId peer;
  std::uint64_t expires_s = 0;  // seconds since 1970
  std::array<std::uint8_t, 32> secret{};
  friend bool operator==(const Pass&, const Pass&) = default;
};
Pass make_pass(const Key& key, std::uint64_t run_id, PeerId peer, std::uint64_t expires_s);

// All that a coordinator needs to know of a relay that is not its own: "isthmus-relay1", ADDRESS:PORT and the key in
// hexadecimal, with ' ' between. It is a secret.
struct RelayName {
  std::string address;
  Key key{};
  friend bool operator==(const RelayName&, const RelayName&) = default;
};
std::string relay_text(const RelayName& relay);
Result<RelayName> read_relay(std::string_view text);

}  // namespace isthmus::relay
