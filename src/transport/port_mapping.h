#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace isthmus::transport {

// A home router that lets what comes to its own ports through to a machine behind it, if one asks: by NAT-PMP (RFC
// 6886, libnatpmp) or as an Internet Gateway Device (UPnP, miniupnpc). Neither has a clock that one could turn; all
// calls block.
class HomeRouter {
 public:
  virtual ~HomeRouter() = default;
  // The one that this machine is behind; null: none that does so answers, in about three seconds.
  static std::unique_ptr<HomeRouter> find();

  // For people: what it speaks.
  virtual std::string language() const = 0;
  // Its address outside; empty: it does not say.
  virtual std::string outside() = 0;
  // What comes to this TCP port goes to the same port of this machine, for kLeaseSeconds. False: it will not.
  virtual bool open(std::uint16_t port) = 0;
  virtual void close(std::uint16_t port) = 0;

  static constexpr std::uint32_t kLeaseSeconds = 3600;
};

// Ports of this machine that its home router is asked to let through, as long as this object lives. The ports outside
// are the same, so that nobody has to be told of them: whoever sees this machine's address and knows its ports can
// dial. The router is talked to in a thread of its own; calls return at once, but for the end, which gives back what
// was got and waits at most three seconds for that.
class PortMapping {
 public:
  PortMapping();
  ~PortMapping();
  PortMapping(const PortMapping&) = delete;
  PortMapping& operator=(const PortMapping&) = delete;

  // These from now on, and no others.
  void want(std::vector<std::uint16_t> ports);
  // Looks for the router anew and asks it: this machine slept, or is elsewhere now.
  void again();
  // For people; nothing: it is not known yet what becomes of the ports.
  std::optional<std::string> outcome() const;

 private:
  class Work;
  std::shared_ptr<Work> work_;  // the thread's, too, which a router that never answers may keep
};

}  // namespace isthmus::transport
