#include "relay/numeric_endpoint.h"

namespace isthmus::relay {

std::optional<boost::asio::ip::tcp::endpoint> numeric_endpoint(const std::string& address) {
  const auto colon = address.rfind(':');
  if (colon == address.npos) return std::nullopt;
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  unsigned long port = 0;
  try {
    port = std::stoul(address.substr(colon + 1));
  } catch (const std::exception&) {
    return std::nullopt;
  }
  boost::system::error_code failure;
  const auto ip = boost::asio::ip::make_address(host, failure);
  if (failure || port == 0 || port > 65535) return std::nullopt;
  return boost::asio::ip::tcp::endpoint(ip, static_cast<std::uint16_t>(port));
}

}  // namespace isthmus::relay
