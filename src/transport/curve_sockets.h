#pragma once

#include <string>
#include <zmq.hpp>

#include "protocol/priority.h"
#include "transport/keys.h"

namespace isthmus::transport {

// Two sockets per pair of peers, so that a heartbeat never stands behind a tensor.
enum Lane : std::size_t { kControlLane, kBulkLane, kLanes };
inline constexpr Lane kBothLanes[] = {kControlLane, kBulkLane};

inline Lane lane_of(protocol::Priority priority) {
  return priority == protocol::Priority::kControl ? kControlLane : kBulkLane;
}

// Who this end of a connection is, and, of an end that dials, whom it talks to alone.
void set_keys(zmq::socket_t& socket, const KeyPair& keys);
void set_server(zmq::socket_t& socket, const protocol::PublicKey& server);

// Not bound yet. Asks the context's authenticator about every key.
zmq::socket_t make_router(zmq::context_t& context, Lane lane, const KeyPair& keys);
// Not connected yet; talks to the owner of `server` only.
zmq::socket_t make_dealer(zmq::context_t& context, Lane lane, const KeyPair& keys, const protocol::PublicKey& server);

// "tcp://ADDRESS:PORT" of a socket that was bound; an IPv4 address as such, also where the socket takes both.
std::string bound_endpoint(const zmq::socket_t& socket);

}  // namespace isthmus::transport
