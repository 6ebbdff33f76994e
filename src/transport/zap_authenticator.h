#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <zmq.hpp>

#include "protocol/endpoints.h"

namespace isthmus::transport {

// Decides who gets a connection (ZAP, ZeroMQ RFC 27) to the sockets of a context. Has to stand before anything is
// bound: without a handler ZeroMQ lets everybody in.
class ZapAuthenticator {
 public:
  struct Rule {
    // The User-Id under which messages of this key arrive; nothing: it is refused.
    std::function<std::optional<std::string>(const protocol::PublicKey&)> user_of;
    const char* why = "";  // what the refused are told
  };
  ZapAuthenticator(zmq::context_t& context, Rule rule);

  // Answers all who wait.
  void answer();
  zmq::socket_t& socket() { return socket_; }
  // Connections of keys that were refused. A client that tries again counts again.
  std::uint64_t refused() const { return refused_; }

 private:
  zmq::socket_t socket_;
  const Rule rule_;
  std::uint64_t refused_ = 0;
};

}  // namespace isthmus::transport
