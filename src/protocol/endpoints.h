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
  friend bool operator==(const Endpoints&, const Endpoints&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("control", self.control, Most::kAddress);
    visit("bulk", self.bulk, Most::kAddress);
  }
};

}  // namespace isthmus::protocol
