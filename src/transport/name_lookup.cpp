#include "transport/name_lookup.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <mutex>
#include <thread>
#include <utility>

namespace isthmus::transport {

struct NameLookup::State {
  std::mutex mutex;
  std::optional<Result<std::vector<Address>>> answer;
};

namespace {

Result<std::vector<Address>> look_up(const Address& name) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  if (const int wrong = ::getaddrinfo(name.host.c_str(), nullptr, &hints, &found); wrong != 0)
    return fail("no address for the name {}: {}; is this machine online?", name.host, ::gai_strerror(wrong));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> all(found, &::freeaddrinfo);
  std::vector<Address> addresses;
  for (const addrinfo* one = all.get(); one; one = one->ai_next) {
    // Good on one link only, and ZeroMQ's endpoints name none.
    if (one->ai_family == AF_INET6 &&
        IN6_IS_ADDR_LINKLOCAL(&reinterpret_cast<const sockaddr_in6*>(one->ai_addr)->sin6_addr))
      continue;
    char text[NI_MAXHOST];
    if (::getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      addresses.push_back({plain_address(text), name.port});
  }
  if (addresses.empty()) return fail("no address for the name {}", name.host);
  return addresses;
}

}  // namespace

NameLookup::NameLookup(const Address& name) : state_(std::make_shared<State>()) {
  std::thread([state = state_, name] {
    auto answer = look_up(name);
    const std::lock_guard lock(state->mutex);
    state->answer = std::move(answer);
  }).detach();
}

std::optional<Result<std::vector<Address>>> NameLookup::poll() const {
  const std::lock_guard lock(state_->mutex);
  return state_->answer;
}

}  // namespace isthmus::transport
