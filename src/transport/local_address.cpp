#include "transport/local_address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace isthmus::transport {

namespace {

constexpr std::string_view kScheme = "tcp://";

std::string unbracketed(const std::string& host) {
  return host.starts_with('[') && host.ends_with(']') ? host.substr(1, host.size() - 2) : host;
}

}  // namespace

Result<std::string> local_address_towards(const std::string& endpoint) {
  const std::size_t colon = endpoint.rfind(':');
  if (!endpoint.starts_with(kScheme) || colon < kScheme.size()) return fail("'{}' is not tcp://ADDRESS:PORT", endpoint);
  std::string host = endpoint.substr(kScheme.size(), colon - kScheme.size());
  host = unbracketed(host);
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (const int wrong = ::getaddrinfo(host.c_str(), endpoint.c_str() + colon + 1, &hints, &found); wrong != 0)
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

Status check_listen(const std::string& host) {
  in_addr four{};
  in6_addr six{};
  if (::inet_pton(AF_INET, host.c_str(), &four) == 1) {
    if (four.s_addr != htonl(INADDR_ANY)) return {};
  } else if (::inet_pton(AF_INET6, unbracketed(host).c_str(), &six) == 1) {
    if (!IN6_IS_ADDR_UNSPECIFIED(&six)) return {};
  } else {
    return fail("'{}' is no address; expected one of this machine's, such as 192.168.1.20", host);
  }
  return fail("nobody can dial {}; expected one address of this machine, such as 192.168.1.20", host);
}

}  // namespace isthmus::transport
