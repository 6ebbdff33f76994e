#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace isthmus::transport {

// Where a process wanted to listen.
struct ListenAddress {
  std::string host;
  std::uint32_t port = 0;  // 0: any
};

// Why it cannot, from ZeroMQ's errno: names address and port, and what to do.
Error listen_error(const ListenAddress& address, int number);

}  // namespace isthmus::transport
