#include "transport/local_address.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "transport/address.h"

namespace isthmus::transport {

Result<std::string> local_address_towards(const std::string& endpoint) {
  const auto address = read_address(endpoint);
  if (!address) return fail("'{}' is not tcp://ADDRESS:PORT", endpoint);
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (const int wrong = ::getaddrinfo(address->host.c_str(), std::to_string(address->port).c_str(), &hints, &found);
      wrong != 0)
    return fail("'{}' is no address: {}", endpoint, ::gai_strerror(wrong));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> other(found, &::freeaddrinfo);
  const int fd = ::socket(other->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_storage own{};
  socklen_t length = sizeof own;
  const bool routed = fd >= 0 && ::connect(fd, other->ai_addr, other->ai_addrlen) == 0 &&
                      ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &length) == 0;
  const int why = errno;
  if (fd >= 0) ::close(fd);
  if (!routed) return fail("no way to {}: {}", endpoint, std::strerror(why));
  char name[NI_MAXHOST];
  if (const int wrong =
          ::getnameinfo(reinterpret_cast<const sockaddr*>(&own), length, name, sizeof name, nullptr, 0, NI_NUMERICHOST);
      wrong != 0)
    return fail("no name for the address towards {}: {}", endpoint, ::gai_strerror(wrong));
  return own.ss_family == AF_INET6 ? fmt::format("[{}]", name) : std::string(name);
}

std::string wildcard_like(const std::string& host) { return host.starts_with('[') ? "[::]" : "0.0.0.0"; }

protocol::Endpoints at_host(const protocol::Endpoints& endpoints, const std::string& host) {
  const auto moved = [&](const std::string& endpoint) {
    const auto address = read_address(endpoint);
    return address ? Address{plain_address(host), address->port}.endpoint() : endpoint;
  };
  return {moved(endpoints.control), moved(endpoints.bulk)};
}

Status check_listen(const std::string& host) {
  if (!Address{plain_address(host), 1}.is_numeric())
    return fail("'{}' is no address; expected one of this machine's, such as 192.168.1.20", host);
  return {};
}

}  // namespace isthmus::transport
