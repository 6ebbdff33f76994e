#include "transport/socket_monitor.h"

#include <array>
#include <cstring>

#include "transport/frame_parts.h"

namespace isthmus::transport {

SocketMonitor::SocketMonitor(zmq::context_t& context, zmq::socket_t& watched, const std::string& name)
    : watched_(watched.handle()), events_(context, zmq::socket_type::pair) {
  const std::string address = "inproc://monitor." + name;
  zmq_socket_monitor(watched.handle(), address.c_str(),
                     ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                         ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL);
  events_.set(zmq::sockopt::linger, 0);
  events_.connect(address);
}

SocketMonitor::~SocketMonitor() { zmq_socket_monitor(watched_, nullptr, 0); }

std::optional<SocketEvent> SocketMonitor::next() {
  // Event and value (zmq_socket_monitor(3)), then the address.
  std::array<zmq::message_t, 2> parts;
  while (receive_parts(events_, parts) > 0) {
    if (parts[0].size() < 6) continue;
    std::uint16_t event = 0;
    SocketEvent seen;
    std::memcpy(&event, parts[0].data<char>(), 2);
    std::memcpy(&seen.descriptor, parts[0].data<char>() + 2, 4);
    switch (event) {
      case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        seen.kind = SocketEvent::Kind::kReady;
        return seen;
      case ZMQ_EVENT_DISCONNECTED:
        return seen;
      case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        seen.kind = SocketEvent::Kind::kRefusedKey;
        return seen;
      case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
      case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        seen.kind = SocketEvent::Kind::kNoHandshake;
        return seen;
      default:
        break;  // monitoring has ended
    }
  }
  return std::nullopt;
}

}  // namespace isthmus::transport
