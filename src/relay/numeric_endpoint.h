#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <optional>
#include <string>

namespace isthmus::relay {

// As transport::read_address() takes it, "tcp://" included, but no name. Nothing: it is none.
std::optional<boost::asio::ip::tcp::endpoint> numeric_endpoint(const std::string& address);

}  // namespace isthmus::relay
