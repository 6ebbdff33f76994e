#include "relay/reflection.h"

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>

#include "relay/hello.h"
#include "relay/numeric_endpoint.h"

namespace isthmus::relay {

Result<std::string> reflected_address(const std::string& relay, Duration patience) {
  const auto endpoint = numeric_endpoint(relay);
  if (!endpoint) return fail("'{}' is no address", relay);
  boost::asio::io_context context;
  boost::asio::ip::tcp::socket socket(context);
  std::array<std::uint8_t, kGreetingBytes> bytes{};
  boost::system::error_code failure = boost::asio::error::timed_out;
  socket.async_connect(*endpoint, [&](boost::system::error_code connected) {
    if (connected) {
      failure = connected;
      return;
    }
    boost::asio::async_read(socket, boost::asio::buffer(bytes),
                            [&](boost::system::error_code read, std::size_t) { failure = read; });
  });
  context.run_for(patience);
  if (failure) return fail("nobody answers at {}: {}", relay, failure.message());
  const auto greeting = decode_greeting(bytes);
  if (!greeting) return fail("what answers at {} is no relay of this version", relay);
  const boost::asio::ip::address_v6 seen(greeting->address);
  return seen.is_v4_mapped() ? boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, seen).to_string()
                             : seen.to_string();
}

}  // namespace isthmus::relay
