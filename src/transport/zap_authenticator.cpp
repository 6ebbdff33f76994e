#include "transport/zap_authenticator.h"

#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "transport/frame_parts.h"

namespace isthmus::transport {

namespace {

// Said at once. After 300, "not now", the other end would wait for the end of the handshake's time without a word.
constexpr const char* kRefused = "400";

}  // namespace

ZapAuthenticator::ZapAuthenticator(zmq::context_t& context, Rule rule)
    : socket_(context, zmq::socket_type::rep), rule_(std::move(rule)) {
  socket_.set(zmq::sockopt::linger, 0);
  socket_.bind("inproc://zeromq.zap.01");
}

void ZapAuthenticator::answer() {
  // Version, request id, domain, address, identity, mechanism, credentials.
  std::array<zmq::message_t, 7> request;
  while (const std::size_t parts = receive_parts(socket_, request)) {
    std::optional<std::string> user;
    if (parts == request.size() && request[5].to_string_view() == "CURVE" && request[6].size() == 32) {
      protocol::PublicKey key;
      std::memcpy(key.data(), request[6].data(), key.size());
      user = rule_.user_of(key);
    }
    if (!user) ++refused_;
    const std::array<std::string, 6> reply = {"1.0",
                                              parts > 1 ? request[1].to_string() : "",
                                              user ? "200" : kRefused,
                                              user ? "OK" : rule_.why,
                                              user.value_or(""),
                                              ""};
    for (std::size_t i = 0; i < reply.size(); ++i)
      socket_.send(zmq::buffer(reply[i]), i + 1 < reply.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
  }
}

}  // namespace isthmus::transport
