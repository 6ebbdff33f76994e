#include "relay/numeric_endpoint.h"

#include "transport/address.h"

namespace isthmus::relay {

std::optional<boost::asio::ip::tcp::endpoint> numeric_endpoint(const std::string& address) {
  const auto read = transport::read_address(address);
  if (!read) return std::nullopt;
  boost::system::error_code failure;
  const auto ip = boost::asio::ip::make_address(read->host, failure);
  if (failure) return std::nullopt;
  return boost::asio::ip::tcp::endpoint(ip, read->port);
}

}  // namespace isthmus::relay
