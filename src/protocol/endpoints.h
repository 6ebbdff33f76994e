#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "protocol/fields.h"

namespace isthmus::protocol {

using PublicKey = std::array<std::uint8_t, 32>;  // CURVE

// Whether a socket may be told to dial this: "tcp://" and a reasonable length.
inline bool is_tcp(const std::string& endpoint) { return endpoint.starts_with("tcp://") && endpoint.size() <= 300; }

// Where a worker can be reached by its peers.
struct Endpoints {
  std::string control;  // "tcp://host:port"
  std::string bulk;
  bool empty() const { return control.empty(); }
  friend bool operator==(const Endpoints&, const Endpoints&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("control", self.control, Most::kAddress);
    visit("bulk", self.bulk, Most::kAddress);
  }
};

// Where a worker is, as the coordinator found out.
struct Location {
  // Who has the same is on one network with it: the IPv4 address that the coordinator sees, a home router's for all
  // behind it, or an IPv6 address's first 64 bits. Empty: all are on one.
  std::string network;
  // Where it answered when the coordinator dialled back. Empty: nobody from elsewhere can dial it.
  Endpoints outside;
  // On the coordinator's own machine.
  bool is_local() const { return network.empty() || network.starts_with("127.") || network == "::/64"; }
  friend bool operator==(const Location&, const Location&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("network", self.network, Most::kAddress);
    visit("outside_control", self.outside.control, Most::kAddress);
    visit("outside_bulk", self.outside.bulk, Most::kAddress);
  }
};

// How one worker gets to another's sockets.
enum class Way : std::uint8_t {
  kNetwork,  // on the network that both are on
  kOutside,  // where the other can be dialled from anywhere
  kRelay,    // through a relay (src/relay)
};

}  // namespace isthmus::protocol
