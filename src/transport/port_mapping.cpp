#include "transport/port_mapping.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <miniupnpc/miniupnpc.h>
#include <miniupnpc/upnpcommands.h>
#include <natpmp.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

namespace isthmus::transport {

namespace {

constexpr auto kRenew = std::chrono::seconds(HomeRouter::kLeaseSeconds / 2);

class NatPmp : public HomeRouter {
 public:
  static std::unique_ptr<HomeRouter> find() {
    auto router = std::make_unique<NatPmp>();
    router->ready_ = ::initnatpmp(&router->state_, 0, 0) == 0;
    if (!router->ready_ || router->outside().empty()) return nullptr;
    return router;
  }
  ~NatPmp() override {
    if (ready_) ::closenatpmp(&state_);
  }
  std::string language() const override { return "NAT-PMP"; }
  std::string outside() override {
    if (::sendpublicaddressrequest(&state_) < 0) return {};
    const auto answer = listen();
    if (!answer || answer->type != NATPMP_RESPTYPE_PUBLICADDRESS) return {};
    std::array<char, INET_ADDRSTRLEN> text{};
    const auto& address = answer->pnu.publicaddress.addr;
    return ::inet_ntop(AF_INET, &address, text.data(), text.size()) ? text.data() : std::string();
  }
  bool open(std::uint16_t port) override {
    const auto given = request(port, port, kLeaseSeconds);
    if (given == port) return true;
    if (given != 0) close(port);  // another port is of no use
    return false;
  }
  void close(std::uint16_t port) override { (void)request(port, 0, 0); }

 private:
  // The port outside; 0: none.
  std::uint16_t request(std::uint16_t inside, std::uint16_t outside, std::uint32_t lifetime) {
    if (::sendnewportmappingrequest(&state_, NATPMP_PROTOCOL_TCP, inside, outside, lifetime) < 0) return 0;
    const auto answer = listen();
    if (!answer || answer->type != NATPMP_RESPTYPE_TCPPORTMAPPING) return 0;
    const auto& mapping = answer->pnu.newportmapping;
    return mapping.privateport == inside && mapping.lifetime > 0 ? mapping.mappedpublicport : 0;
  }
  // The library repeats the request after 250 and 500 ms; a router next door that has not answered by then will not.
  std::optional<natpmpresp_t> listen() {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::milliseconds(900);
    while (std::chrono::steady_clock::now() < give_up) {
      timeval wait{};
      if (::getnatpmprequesttimeout(&state_, &wait) != 0) return std::nullopt;
      pollfd seen{state_.s, POLLIN, 0};
      (void)::poll(&seen, 1, static_cast<int>(wait.tv_sec * 1000 + wait.tv_usec / 1000) + 1);
      natpmpresp_t answer{};
      const int code = ::readnatpmpresponseorretry(&state_, &answer);
      if (code == 0) return answer;
      if (code != NATPMP_TRYAGAIN) return std::nullopt;
    }
    return std::nullopt;
  }

  natpmp_t state_{};
  bool ready_ = false;
};

class Gateway : public HomeRouter {
 public:
  static std::unique_ptr<HomeRouter> find() {
    // Newer devices answer for the older kind as well. All who answer in this time are heard.
    constexpr int kPatienceMs = 800;
    constexpr const char* kKind = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
    int error = 0;
    UPNPDev* const devices =
        ::upnpDiscoverDevice(kKind, kPatienceMs, nullptr, nullptr, UPNP_LOCAL_PORT_ANY, 0, 2, &error);
    if (!devices) return nullptr;
    auto router = std::make_unique<Gateway>();
    std::array<char, 64> own{};
#if MINIUPNPC_API_VERSION >= 18
    std::array<char, 64> outside{};
    const int kind = ::UPNP_GetValidIGD(devices, &router->urls_, &router->data_, own.data(), own.size(), outside.data(),
                                        outside.size());
#else
    const int kind = ::UPNP_GetValidIGD(devices, &router->urls_, &router->data_, own.data(), own.size());
#endif
    ::freeUPNPDevlist(devices);
    router->has_urls_ = kind != 0;
    router->own_ = own.data();
    // 2: it says that it is not connected, or its address is no public one. Whether it can be dialled will show.
    return kind == 1 || kind == 2 ? std::move(router) : nullptr;
  }
  ~Gateway() override {
    if (has_urls_) ::FreeUPNPUrls(&urls_);
  }
  std::string language() const override { return "UPnP"; }
  std::string outside() override {
    std::array<char, 64> text{};
    return ::UPNP_GetExternalIPAddress(urls_.controlURL, data_.first.servicetype, text.data()) == 0 ? text.data()
                                                                                                    : std::string();
  }
  bool open(std::uint16_t port) override {
    // Some know only leases without an end.
    return add(port, std::to_string(kLeaseSeconds)) || add(port, "0");
  }
  void close(std::uint16_t port) override {
    (void)::UPNP_DeletePortMapping(urls_.controlURL, data_.first.servicetype, std::to_string(port).c_str(), "TCP",
                                   nullptr);
  }

 private:
  bool add(std::uint16_t port, const std::string& lease) {
    const std::string text = std::to_string(port);
    return ::UPNP_AddPortMapping(urls_.controlURL, data_.first.servicetype, text.c_str(), text.c_str(), own_.c_str(),
                                 "isthmus", "TCP", nullptr, lease.c_str()) == 0;
  }

  UPNPUrls urls_{};
  IGDdatas data_{};
  bool has_urls_ = false;
  std::string own_;
};

}  // namespace

std::unique_ptr<HomeRouter> HomeRouter::find() {
  if (auto router = NatPmp::find()) return router;
  return Gateway::find();
}

PortMapping::PortMapping() : thread_([this](const std::stop_token& stop) { work(stop); }) {}

PortMapping::~PortMapping() = default;

void PortMapping::want(std::vector<std::uint16_t> ports) {
  const std::lock_guard lock(mutex_);
  wanted_ = std::move(ports);
  anew_ = true;
  outcome_.reset();
  changed_.notify_all();
}

void PortMapping::again() {
  const std::lock_guard lock(mutex_);
  anew_ = true;
  changed_.notify_all();
}

std::optional<std::string> PortMapping::outcome() const {
  const std::lock_guard lock(mutex_);
  return outcome_;
}

void PortMapping::work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    changed_.wait_for(lock, stop, kRenew, [this] { return anew_; });
    if (stop.stop_requested()) break;
    anew_ = false;
    const auto ports = wanted_;
    lock.unlock();
    std::string what = ask_for(ports);
    lock.lock();
    if (!anew_) outcome_ = std::move(what);
  }
  lock.unlock();
  give_back();
}

std::string PortMapping::ask_for(const std::vector<std::uint16_t>& ports) {
  if (ports != open_) give_back();
  if (ports.empty()) return "no port is wanted";
  // One that refuses what it once granted may not be the one that this machine is behind now.
  for (bool known = router_ != nullptr;; known = false) {
    if (!router_) router_ = HomeRouter::find();
    if (!router_) return "no home router answers that lets ports through";
    open_ = ports;
    const auto refused = std::ranges::find_if_not(ports, [&](std::uint16_t port) { return router_->open(port); });
    if (refused == ports.end())
      return fmt::format("the home router lets ports {} through ({})", fmt::join(ports, " and "), router_->language());
    give_back();
    const std::string language = router_->language();
    router_.reset();
    if (!known) return fmt::format("the home router does not let port {} through ({})", *refused, language);
  }
}

void PortMapping::give_back() {
  for (const std::uint16_t port : std::exchange(open_, {})) router_->close(port);
}

}  // namespace isthmus::transport
