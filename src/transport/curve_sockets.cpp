#include "transport/curve_sockets.h"

#include "transport/transport.h"

namespace isthmus::transport {

namespace {

// Small, so that a gradient queued in front of the socket overtakes activations that have not reached it.
constexpr int kBulkHighWater = 4;
constexpr int kControlHighWater = 1000;

zmq::const_buffer raw(const std::array<std::uint8_t, 32>& key) { return {key.data(), key.size()}; }

zmq::socket_t make_socket(zmq::context_t& context, zmq::socket_type type, Lane lane, const KeyPair& keys) {
  zmq::socket_t socket(context, type);
  const int high_water = lane == kControlLane ? kControlHighWater : kBulkHighWater;
  socket.set(zmq::sockopt::sndhwm, high_water);
  socket.set(zmq::sockopt::rcvhwm, high_water);
  socket.set(zmq::sockopt::linger, 500);
  socket.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(kFrameBytesMax));
  socket.set(zmq::sockopt::handshake_ivl, 10'000);
  socket.set(zmq::sockopt::tcp_keepalive, 1);
  socket.set(zmq::sockopt::tcp_keepalive_idle, 20);
  socket.set(zmq::sockopt::tcp_keepalive_intvl, 5);
  socket.set(zmq::sockopt::tcp_keepalive_cnt, 3);
  socket.set(zmq::sockopt::tcp_maxrt, 15'000);
  socket.set(zmq::sockopt::ipv6, 1);
  // Half-open connections are found by these. On bulk the answer stands behind tensors on a slow link.
  const int beat = lane == kControlLane ? 2'000 : 10'000;
  socket.set(zmq::sockopt::heartbeat_ivl, beat);
  socket.set(zmq::sockopt::heartbeat_timeout, 3 * beat);
  socket.set(zmq::sockopt::heartbeat_ttl, 4 * beat);
  set_keys(socket, keys);
  return socket;
}

}  // namespace

void set_keys(zmq::socket_t& socket, const KeyPair& keys) {
  socket.set(zmq::sockopt::curve_publickey, raw(keys.public_key));
  socket.set(zmq::sockopt::curve_secretkey, raw(keys.secret_key));
}

void set_server(zmq::socket_t& socket, const protocol::PublicKey& server) {
  socket.set(zmq::sockopt::curve_serverkey, raw(server));
}

zmq::socket_t make_router(zmq::context_t& context, Lane lane, const KeyPair& keys) {
  zmq::socket_t router = make_socket(context, zmq::socket_type::router, lane, keys);
  router.set(zmq::sockopt::curve_server, 1);
  router.set(zmq::sockopt::zap_domain, "isthmus");
  router.set(zmq::sockopt::router_mandatory, 1);
  return router;
}

zmq::socket_t make_dealer(zmq::context_t& context, Lane lane, const KeyPair& keys, const protocol::PublicKey& server) {
  zmq::socket_t dealer = make_socket(context, zmq::socket_type::dealer, lane, keys);
  set_server(dealer, server);
  // Frames wait in front of the socket, not in a pipe to a connection that does not exist yet.
  dealer.set(zmq::sockopt::immediate, 1);
  dealer.set(zmq::sockopt::reconnect_ivl, 100);
  dealer.set(zmq::sockopt::reconnect_ivl_max, 3'000);
  // Without it the kernel asks again after 1, 3, 7, 15 s and more, and does not see that the link is back.
  dealer.set(zmq::sockopt::connect_timeout, 5'000);
  return dealer;
}

std::string bound_endpoint(const zmq::socket_t& socket) {
  constexpr std::string_view kMapped = "tcp://[::ffff:";
  std::string endpoint = socket.get(zmq::sockopt::last_endpoint);
  const std::size_t end = endpoint.find(']');
  if (!endpoint.starts_with(kMapped) || end == std::string::npos || endpoint.find('.') > end) return endpoint;
  return "tcp://" + endpoint.substr(kMapped.size(), end - kMapped.size()) + endpoint.substr(end + 1);
}

}  // namespace isthmus::transport
