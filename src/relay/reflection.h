#pragma once

#include <string>

#include "base/result.h"
#include "base/time.h"

namespace isthmus::relay {

// The address, numeric and without a port, from which a relay sees this machine: the first thing that it says to
// anybody. Behind a router that is the router's. Blocks for at most `patience`. Errors: nobody answers at
// "ADDRESS:PORT" (numeric), or it is no relay.
Result<std::string> reflected_address(const std::string& relay, Duration patience);

}  // namespace isthmus::relay
