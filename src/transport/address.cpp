#include "transport/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <string_view>

namespace isthmus::transport {

namespace {

constexpr std::string_view kScheme = "tcp://";

std::string unbracketed(const std::string& host) {
  return host.starts_with('[') && host.ends_with(']') ? host.substr(1, host.size() - 2) : host;
}

std::optional<in_addr> four(const std::string& host) {
  in_addr address{};
  return ::inet_pton(AF_INET, host.c_str(), &address) == 1 ? std::optional(address) : std::nullopt;
}
std::optional<in6_addr> six(const std::string& host) {
  in6_addr address{};
  return ::inet_pton(AF_INET6, unbracketed(host).c_str(), &address) == 1 ? std::optional(address) : std::nullopt;
}

}  // namespace

std::string Address::text() const {
  return host.find(':') == host.npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

bool Address::is_numeric() const { return four(host) || six(host); }

std::optional<Address> read_address(std::string text) {
  if (text.starts_with(kScheme)) text.erase(0, kScheme.size());
  const std::size_t colon = text.rfind(':');
  if (colon == text.npos || colon == 0) return std::nullopt;
  Address address{unbracketed(text.substr(0, colon)), 0};
  const char* end = text.data() + text.size();
  const auto [stop, wrong] = std::from_chars(text.data() + colon + 1, end, address.port);
  if (wrong != std::errc() || stop != end || address.port == 0 || address.host.empty()) return std::nullopt;
  // Only an address has colons, and then brackets, so that its port is no part of it.
  if (address.host.find(':') != address.host.npos && (!six(address.host) || text[0] != '[')) return std::nullopt;
  const auto belongs = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_' || c == ':' || c == '%';
  };
  if (address.host.size() > 253 || !std::ranges::all_of(address.host, belongs)) return std::nullopt;
  return address;
}

std::string plain_address(const std::string& host) {
  const auto address = six(host);
  if (!address || !IN6_IS_ADDR_V4MAPPED(&*address)) return unbracketed(host);
  char text[INET_ADDRSTRLEN];
  return ::inet_ntop(AF_INET, &address->s6_addr[12], text, sizeof text);
}

bool is_loopback(const std::string& host) {
  const std::string plain = plain_address(host);
  if (const auto address = four(plain)) return (ntohl(address->s_addr) >> 24) == 127;
  const auto address = six(plain);
  return address && IN6_IS_ADDR_LOOPBACK(&*address);
}

bool is_wildcard(const std::string& host) {
  if (const auto address = four(host)) return address->s_addr == htonl(INADDR_ANY);
  const auto address = six(host);
  return address && IN6_IS_ADDR_UNSPECIFIED(&*address);
}

bool is_behind_router(const std::string& host) {
  in_addr address{};
  if (::inet_pton(AF_INET, plain_address(host).c_str(), &address) != 1) return false;
  const std::uint32_t bits = ntohl(address.s_addr);
  return bits >> 24 == 10 || bits >> 20 == 0xac1 || bits >> 16 == 0xc0a8 || bits >> 22 == 0x191;
}

std::string network_of(const std::string& host) {
  const std::string plain = plain_address(host);
  auto address = six(plain);
  if (!address) return plain;
  std::fill(address->s6_addr + 8, address->s6_addr + 16, std::uint8_t{0});
  char text[INET6_ADDRSTRLEN];
  return fmt::format("{}/64", ::inet_ntop(AF_INET6, &*address, text, sizeof text));
}

}  // namespace isthmus::transport
