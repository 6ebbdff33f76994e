#pragma once

#include <span>
#include <string>
#include <zmq.hpp>

#include "transport/transport.h"

namespace isthmus::transport {

// Takes one message, if one is there, and returns how many parts it has (0: none is there). What does not fit in
// `parts` is dropped part by part.
std::size_t receive_parts(zmq::socket_t& socket, std::span<zmq::message_t> parts);

// A frame as it comes from a lane: head, and payload if the second part is not empty.
Frame make_frame(PeerId peer, protocol::Priority priority, const zmq::message_t& head, const zmq::message_t& payload);

// Hands the frame over, behind `route` to a ROUTER. False if the socket is full. The payload is not copied: the message
// keeps it until an I/O thread has encrypted it.
bool send_frame(zmq::socket_t& socket, const std::string* route, const Frame& frame);

}  // namespace isthmus::transport
