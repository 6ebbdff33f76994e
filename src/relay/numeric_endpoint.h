#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <optional>
#include <string>

namespace isthmus::relay {

// "ADDRESS:PORT", numeric, an IPv6 address in brackets. Nothing: it is none.
std::optional<boost::asio::ip::tcp::endpoint> numeric_endpoint(const std::string& address);

}  // namespace isthmus::relay
