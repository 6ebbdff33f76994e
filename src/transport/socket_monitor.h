#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <zmq.hpp>

namespace isthmus::transport {

struct SocketEvent {
  enum class Kind {
    kReady,        // a connection has shaken hands
    kClosed,       // a connection was lost
    kRefusedKey,   // by this side's authenticator or the other's
    kNoHandshake,  // another mechanism, another server's key, or no ZeroMQ at all
  };
  Kind kind = Kind::kClosed;
  std::int32_t descriptor = -1;  // of what was closed
};

// A socket's connection events, without a thread.
class SocketMonitor {
 public:
  // `name`: no two monitors of a context share one.
  SocketMonitor(zmq::context_t& context, zmq::socket_t& watched, const std::string& name);
  ~SocketMonitor();
  SocketMonitor(const SocketMonitor&) = delete;
  SocketMonitor& operator=(const SocketMonitor&) = delete;

  std::optional<SocketEvent> next();
  zmq::socket_t& socket() { return events_; }

 private:
  void* watched_;
  zmq::socket_t events_;
};

}  // namespace isthmus::transport
