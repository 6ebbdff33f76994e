#pragma once

#include <string>

#include "base/result.h"
#include "protocol/endpoints.h"

namespace isthmus::transport {

// The address of this machine from which it reaches "tcp://ADDRESS:PORT", as a host to listen on: an IPv6 one in
// brackets. Sends nothing: the kernel's routes say it. Fails if the address is not numeric or there is no route.
Result<std::string> local_address_towards(const std::string& endpoint);

// All of this machine's addresses of the kind that this one is.
std::string wildcard_like(const std::string& host);
// The same ports at this host.
protocol::Endpoints at_host(const protocol::Endpoints& endpoints, const std::string& host);

// Whether a socket can listen there: a numeric address, 0.0.0.0 or :: for all of this machine's.
Status check_listen(const std::string& host);

}  // namespace isthmus::transport
