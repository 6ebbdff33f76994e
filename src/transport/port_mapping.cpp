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
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

namespace isthmus::transport {

namespace {

constexpr auto kRenew = std::chrono::seconds(HomeRouter::kLeaseSeconds / 2);
constexpr auto kFarewell = std::chrono::seconds(3);

// An address, or nothing: it comes from whoever answers.
std::string checked_address(const char* text) {
  in_addr four{};
  in6_addr six{};
  return ::inet_pton(AF_INET, text, &four) == 1 || ::inet_pton(AF_INET6, text, &six) == 1 ? text : "";
}

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
    const auto answer = listen([](const natpmpresp_t& heard) { return heard.type == NATPMP_RESPTYPE_PUBLICADDRESS; });
    if (!answer) return {};
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
    const auto answer = listen([&](const natpmpresp_t& heard) {
      return heard.type == NATPMP_RESPTYPE_TCPPORTMAPPING && heard.pnu.newportmapping.privateport == inside;
    });
    if (!answer) return 0;
    const auto& mapping = answer->pnu.newportmapping;
    return mapping.lifetime > 0 ? mapping.mappedpublicport : 0;
  }
  // The library repeats the request after 250 and 500 ms; a router next door that has not answered by then will not.
  // Of a slow one the second answer to a request comes after the next request: it is passed over.
  template <class Fits>
  std::optional<natpmpresp_t> listen(Fits&& fits) {
    using std::chrono::steady_clock, std::chrono::milliseconds;
    const auto give_up = steady_clock::now() + milliseconds(900);
    while (true) {
      const auto left = std::chrono::duration_cast<milliseconds>(give_up - steady_clock::now()).count();
      timeval wait{};
      if (left <= 0 || ::getnatpmprequesttimeout(&state_, &wait) != 0) return std::nullopt;
      // The library's time is the clock's on the wall, which may jump.
      const std::int64_t repeat = std::int64_t{wait.tv_sec} * 1000 + wait.tv_usec / 1000 + 1;
      pollfd seen{state_.s, POLLIN, 0};
      (void)::poll(&seen, 1, static_cast<int>(std::clamp<std::int64_t>(repeat, 0, left)));
      natpmpresp_t answer{};
      const int code = ::readnatpmpresponseorretry(&state_, &answer);
      if (code == 0 && fits(answer)) return answer;
      if (code == 0) state_.has_pending_request = 1;  // it waits for its own answer
      if (code != 0 && code != NATPMP_TRYAGAIN) return std::nullopt;
    }
  }

  natpmp_t state_{};
  bool ready_ = false;
};

// Of the default route, as libnatpmp finds it; empty: there is none.
std::string address_of_gateway() {
  natpmp_t state{};
  if (::initnatpmp(&state, 0, 0) != 0) return {};
  in_addr gateway{};
  gateway.s_addr = state.gateway;
  ::closenatpmp(&state);
  std::array<char, INET_ADDRSTRLEN> text{};
  return ::inet_ntop(AF_INET, &gateway, text.data(), text.size()) ? text.data() : std::string();
}

class Gateway : public HomeRouter {
 public:
  static std::unique_ptr<HomeRouter> find() {
    // Newer devices answer for the older kind as well. All who answer in this time are heard.
    constexpr int kPatienceMs = 1000;
    constexpr const char* kKind = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
    int error = 0;
    UPNPDev* const devices =
        ::upnpDiscoverDevice(kKind, kPatienceMs, nullptr, nullptr, UPNP_LOCAL_PORT_ANY, 0, 2, &error);
    if (!devices) return nullptr;
    // Anybody on the network may answer, and is asked for more over HTTP if he is listened to.
    const std::string way_out = "http://" + address_of_gateway() + ":";
    for (UPNPDev* device = devices; device; device = device->pNext)
      if (!std::string_view(device->descURL).starts_with(way_out)) *device->descURL = '\0';
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
    // It may say that it is not connected, or has no public address. Whether it can be dialled will show.
    constexpr int kLastGateway = MINIUPNPC_API_VERSION >= 18 ? 3 : 2;
    return kind >= 1 && kind <= kLastGateway ? std::move(router) : nullptr;
  }
  ~Gateway() override {
    if (has_urls_) ::FreeUPNPUrls(&urls_);
  }
  std::string language() const override { return "UPnP"; }
  std::string outside() override {
    std::array<char, 64> text{};
    if (::UPNP_GetExternalIPAddress(urls_.controlURL, data_.first.servicetype, text.data()) != 0) return {};
    return checked_address(text.data());
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

// What the thread and the object share. The thread ends soon after finish(), unless a router keeps it.
class PortMapping::Work {
 public:
  void want(std::vector<std::uint16_t> ports) {
    const std::lock_guard lock(mutex_);
    wanted_ = std::move(ports);
    anew_ = true;
    outcome_.reset();
    changed_.notify_all();
  }
  void again() {
    const std::lock_guard lock(mutex_);
    anew_ = elsewhere_ = true;
    changed_.notify_all();
  }
  std::optional<std::string> outcome() const {
    const std::lock_guard lock(mutex_);
    return outcome_;
  }
  void finish() {
    std::unique_lock lock(mutex_);
    ends_ = true;
    changed_.notify_all();
    changed_.wait_for(lock, kFarewell, [this] { return done_; });
  }

  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait_for(lock, kRenew, [this] { return anew_ || ends_; });
      if (ends_) break;
      anew_ = false;
      const bool elsewhere = std::exchange(elsewhere_, false);
      const auto ports = wanted_;
      lock.unlock();
      if (elsewhere) router_.reset();
      std::string what = ask_for(ports);
      lock.lock();
      if (!anew_) outcome_ = std::move(what);
    }
    lock.unlock();
    give_back();
    lock.lock();
    done_ = true;
    changed_.notify_all();
  }

 private:
  std::string ask_for(const std::vector<std::uint16_t>& ports) {
    if (ports != open_) give_back();
    if (ports.empty()) return "no port is wanted";
    // One that refuses what it once granted may not be the one that this machine is behind now.
    for (bool known = router_ != nullptr;; known = false) {
      if (!router_) router_ = HomeRouter::find();
      if (!router_) return "no home router answers that lets ports through";
      std::erase_if(open_, [&](std::uint16_t port) { return !router_->open(port); });
      const auto refused = std::ranges::find_if_not(ports, [&](std::uint16_t port) {
        if (std::ranges::find(open_, port) != open_.end()) return true;
        if (!router_->open(port)) return false;
        open_.push_back(port);
        return true;
      });
      if (refused == ports.end())
        return fmt::format("the home router lets ports {} through ({})", fmt::join(ports, " and "),
                           router_->language());
      give_back();
      const std::string language = router_->language();
      router_.reset();
      if (!known) return fmt::format("the home router does not let port {} through ({})", *refused, language);
    }
  }
  void give_back() {
    for (const std::uint16_t port : std::exchange(open_, {}))
      if (router_) router_->close(port);
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::uint16_t> wanted_;
  bool anew_ = false, elsewhere_ = false, ends_ = false, done_ = false;
  std::optional<std::string> outcome_;
  // The thread's.
  std::unique_ptr<HomeRouter> router_;
  std::vector<std::uint16_t> open_;
};

PortMapping::PortMapping() : work_(std::make_shared<Work>()) {
  std::thread([work = work_] { work->run(); }).detach();
}

PortMapping::~PortMapping() { work_->finish(); }

void PortMapping::want(std::vector<std::uint16_t> ports) { work_->want(std::move(ports)); }

void PortMapping::again() { work_->again(); }

std::optional<std::string> PortMapping::outcome() const { return work_->outcome(); }

}  // namespace isthmus::transport
