#include "transport/listen_error.h"

#include <cerrno>
#include <zmq.hpp>

namespace isthmus::transport {

Error listen_error(const ListenAddress& address, int number) {
  const std::string where =
      address.port == 0 ? fmt::format("{}, any port", address.host) : fmt::format("{}:{}", address.host, address.port);
  const auto because = [&](const std::string& why) { return Error{"cannot listen on " + where + ": " + why}; };
  if (address.port > 65'535) return because("there is no such port, the last one is 65535; choose a lower --port");
  switch (number) {
    case EADDRINUSE:
      return because("it is in use by another process; choose another with --port, or 0 for any free one");
    case EACCES:
      return because("ports below 1024 are not for every user; choose a higher one with --port");
    case EADDRNOTAVAIL:
    case ENODEV:
      return because("the address is not this machine's; choose one of its own");
    case EMFILE:
      return because("no more open files are allowed; raise the limit with ulimit -n");
    default:
      return because(fmt::format("{}; choose another address, or another port with --port", zmq_strerror(number)));
  }
}

}  // namespace isthmus::transport
