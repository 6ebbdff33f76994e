#include "transport/frame_parts.h"

namespace isthmus::transport {

std::size_t receive_parts(zmq::socket_t& socket, std::span<zmq::message_t> parts) {
  zmq::message_t extra;
  std::size_t count = 0;
  do {
    zmq::message_t& part = count < parts.size() ? parts[count] : extra;
    // All parts of a message arrive together.
    if (!socket.recv(part, count == 0 ? zmq::recv_flags::dontwait : zmq::recv_flags::none)) return 0;
    ++count;
    if (!part.more()) return count;
  } while (true);
}

Frame make_frame(PeerId peer, protocol::Priority priority, const zmq::message_t& head, const zmq::message_t& payload) {
  Frame frame;
  frame.peer = peer;
  frame.priority = priority;
  frame.head.assign(head.data<std::uint8_t>(), head.data<std::uint8_t>() + head.size());
  if (payload.size() > 0)
    frame.payload = share(Bytes(payload.data<std::uint8_t>(), payload.data<std::uint8_t>() + payload.size()));
  return frame;
}

bool send_frame(zmq::socket_t& socket, const std::string* route, const Frame& frame) {
  const auto more = zmq::send_flags::sndmore | zmq::send_flags::dontwait;
  if (route && !socket.send(zmq::buffer(*route), more)) return false;
  const bool has_payload = !frame.payload->empty();
  if (!socket.send(zmq::buffer(frame.head), has_payload ? more : zmq::send_flags::dontwait)) return false;
  if (!has_payload) return true;
  auto* keep = new SharedBytes(frame.payload);
  zmq::message_t payload(
      const_cast<std::uint8_t*>(frame.payload->data()), frame.payload->size(),
      [](void*, void* hint) { delete static_cast<SharedBytes*>(hint); }, keep);
  socket.send(payload, zmq::send_flags::none);
  return true;
}

}  // namespace isthmus::transport
