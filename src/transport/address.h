#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"

namespace isthmus::transport {

// "HOST:PORT", an IPv6 address in brackets; a leading "tcp://" is allowed. HOST is a name or an address.
struct Address {
  std::string host;  // without brackets
  std::uint16_t port = 0;

  std::string text() const;
  std::string endpoint() const { return "tcp://" + text(); }
  // It is an address, so that nothing has to be looked up.
  bool is_numeric() const;
  friend bool operator==(const Address&, const Address&) = default;
};
// Nothing: it is none, or has no port from 1 on.
std::optional<Address> read_address(std::string text);

// An IPv4 address as such, also where a socket that takes both shows it as "::ffff:1.2.3.4". Others as they are.
std::string plain_address(const std::string& host);
// Whether it is this machine's own, 127.0.0.1 or ::1.
bool is_loopback(const std::string& host);
// Whether it stands for all of a machine's, 0.0.0.0 or ::.
bool is_wildcard(const std::string& host);
// Whether nobody outside can dial it, because a router stands between: RFC 1918, and providers' 100.64.0.0/10.
bool is_behind_router(const std::string& host);
// What machines on one network have in common, as the coordinator sees them: an IPv4 address, which is a home router's
// for all behind it, or the first 64 bits of an IPv6 one.
std::string network_of(const std::string& host);

}  // namespace isthmus::transport
