#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "transport/address.h"

namespace isthmus::app {

// Where others reach a coordinator, if that is not where it listens: what a router forwards, or a name.
struct Advertised {
  std::string host;
  std::uint16_t port = 0;  // the first of its four; 0: as it listens
};

// "NAME" or "NAME:PORT", at most as many as an invite holds.
Result<std::vector<Advertised>> read_advertised(const std::vector<std::string>& texts);
// What invites say of a door that listens here: where it is advertised, or, if it is not, this.
std::vector<std::string> doors_of(const std::vector<Advertised>& advertised, const transport::Address& door);

}  // namespace isthmus::app
