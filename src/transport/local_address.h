#pragma once

#include <string>

#include "base/result.h"

namespace isthmus::transport {

// The address of this machine from which it reaches "tcp://ADDRESS:PORT", as a host to listen on: an IPv6 one in
// brackets. Sends nothing: the kernel's routes say it. Fails if the address is not numeric or there is no route.
Result<std::string> local_address_towards(const std::string& endpoint);

// Whether others can be told to dial this host: a numeric address, and not the one that stands for all of a machine's.
Status check_listen(const std::string& host);

}  // namespace isthmus::transport
