#include "transport/door.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <zmq.hpp>

#include "base/digest.h"
#include "base/identity.h"
#include "base/rate_limit.h"
#include "transport/curve_sockets.h"
#include "transport/frame_parts.h"
#include "transport/listen_error.h"
#include "transport/zap_authenticator.h"

namespace isthmus::transport {

namespace {

constexpr const char* kDomain = "enrol";
constexpr std::size_t kRequestsPerPoll = 256;
constexpr std::size_t kLimitsMax = 4096;
// What CURVE adds to a frame, of which ZeroMQ's limit is; rounded up.
constexpr std::size_t kCurveBytes = 64;
constexpr int kWaitingMax = 1000;  // requests, answers

void send_all(zmq::socket_t& socket, const std::vector<std::string>& parts) {
  for (std::size_t i = 0; i < parts.size(); ++i)
    if (!socket.send(zmq::buffer(parts[i]), (i + 1 < parts.size() ? zmq::send_flags::sndmore : zmq::send_flags::none) |
                                                zmq::send_flags::dontwait))
      return;
}

// What one key, or one address, may still ask for.
}  // namespace

class Door::Impl {
 public:
  explicit Impl(Options options) : options_(std::move(options)) {}

  void bind() {
    // An invite that ran out never becomes good again, so the refused need not try for ever.
    authenticator_.emplace(context_, ZapAuthenticator::Rule{[this](const protocol::PublicKey& key) {
                                                              return invites_.contains(key) ? std::optional(to_hex(key))
                                                                                            : std::nullopt;
                                                            },
                                                            "nobody invited this key"});
    router_ = zmq::socket_t(context_, zmq::socket_type::router);
    set_keys(router_, options_.keys);
    router_.set(zmq::sockopt::curve_server, 1);
    router_.set(zmq::sockopt::zap_domain, kDomain);
    router_.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(kRequestBytesMax + kCurveBytes));
    router_.set(zmq::sockopt::rcvhwm, kWaitingMax);
    router_.set(zmq::sockopt::sndhwm, kWaitingMax);
    router_.set(zmq::sockopt::handshake_ivl, 10'000);
    router_.set(zmq::sockopt::linger, 500);
    router_.set(zmq::sockopt::ipv6, 1);
    router_.bind("tcp://" + options_.host + ":" + (options_.port == 0 ? "*" : std::to_string(options_.port)));
    endpoint_ = bound_endpoint(router_);
  }

  const std::string& endpoint() const { return endpoint_; }
  void let_in(const protocol::PublicKey& invite) { invites_.insert(invite); }
  std::uint64_t refused() const { return refused_ + authenticator_->refused(); }

  std::vector<Request> poll(Time now) {
    authenticator_->answer();
    std::vector<Request> requests;
    for (std::size_t n = 0; n < kRequestsPerPoll; ++n) {
      std::array<zmq::message_t, 2> parts;  // route, text
      const std::size_t received = receive_parts(router_, parts);
      if (received == 0) break;
      const char* user = received == parts.size() ? zmq_msg_gets(parts[1].handle(), "User-Id") : nullptr;
      const char* address = user ? zmq_msg_gets(parts[1].handle(), "Peer-Address") : nullptr;
      Request request;
      if (!address || parts[1].size() > kRequestBytesMax || !from_hex(user, request.invite) || !may_ask(user, now) ||
          !may_ask(address, now)) {
        ++refused_;
        continue;
      }
      request.route = parts[0].to_string();
      request.text = parts[1].to_string();
      requests.push_back(std::move(request));
    }
    return requests;
  }

  void answer(const std::string& route, const std::vector<std::string>& parts) {
    std::vector<std::string> message = {route};
    message.insert(message.end(), parts.begin(), parts.end());
    send_all(router_, message);
  }

  std::vector<int> descriptors() const {
    return {authenticator_->socket().get(zmq::sockopt::fd), router_.get(zmq::sockopt::fd)};
  }
  bool ready() const {
    return ((authenticator_->socket().get(zmq::sockopt::events) | router_.get(zmq::sockopt::events)) & ZMQ_POLLIN) != 0;
  }

 private:
  bool may_ask(const std::string& who, Time now) {
    if (limits_.size() >= kLimitsMax && !limits_.contains(who)) {
      std::erase_if(limits_, [&](const auto& entry) { return entry.second.is_full(now); });
      if (limits_.size() >= kLimitsMax) return false;
    }
    return limits_[who].takes({options_.burst, options_.request_every}, now);
  }

  const Options options_;
  zmq::context_t context_{1};
  mutable std::optional<ZapAuthenticator> authenticator_;  // once bound
  mutable zmq::socket_t router_;
  std::string endpoint_;
  std::set<protocol::PublicKey> invites_;
  std::map<std::string, RateLimit> limits_;  // by key and by address
  std::uint64_t refused_ = 0;
};

Door::Door(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Door::~Door() = default;

Result<std::unique_ptr<Door>> Door::open(Options options) {
  const ListenAddress address{options.host, options.port};
  auto impl = std::make_unique<Impl>(std::move(options));
  try {
    impl->bind();
  } catch (const zmq::error_t& error) {
    return tl::unexpected(listen_error(address, error.num()));
  }
  return std::unique_ptr<Door>(new Door(std::move(impl)));
}

std::string Door::endpoint() const { return impl_->endpoint(); }
void Door::let_in(const protocol::PublicKey& invite) { impl_->let_in(invite); }
std::vector<Door::Request> Door::poll(Time now) { return impl_->poll(now); }
void Door::answer(const std::string& route, const std::vector<std::string>& parts) { impl_->answer(route, parts); }
std::vector<int> Door::descriptors() const { return impl_->descriptors(); }
bool Door::ready() const { return impl_->ready(); }
std::uint64_t Door::refused() const { return impl_->refused(); }

class Caller::Impl {
 public:
  explicit Impl(const KeyPair& invite) : invite_(invite) {}

  void dial(const std::string& endpoint, const protocol::PublicKey& door) {
    dealer_ = zmq::socket_t(context_, zmq::socket_type::dealer);
    set_keys(dealer_, invite_);
    set_server(dealer_, door);
    dealer_.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(kAnswerPartMax + kCurveBytes));
    dealer_.set(zmq::sockopt::sndhwm, 4);
    dealer_.set(zmq::sockopt::rcvhwm, 4);
    dealer_.set(zmq::sockopt::handshake_ivl, 10'000);
    dealer_.set(zmq::sockopt::reconnect_ivl, 50);
    dealer_.set(zmq::sockopt::reconnect_ivl_max, 2'000);
    dealer_.set(zmq::sockopt::linger, 0);
    dealer_.set(zmq::sockopt::ipv6, 1);
    dealer_.connect(endpoint);
  }
  void ask(const std::string& text) {
    if (dealer_) (void)dealer_.send(zmq::buffer(text), zmq::send_flags::dontwait);
  }
  std::vector<std::string> answer(Duration longest) {
    std::vector<std::string> answer;
    if (!dealer_) return answer;
    zmq::pollitem_t item{dealer_.handle(), 0, ZMQ_POLLIN, 0};
    try {
      zmq::poll(&item, 1, std::chrono::ceil<std::chrono::milliseconds>(longest));
    } catch (const zmq::error_t& error) {
      if (error.num() != EINTR) throw;
      return answer;
    }
    std::array<zmq::message_t, kAnswerPartsMax> parts;
    const std::size_t received = receive_parts(dealer_, parts);
    if (received > parts.size()) return answer;  // no Door says so much
    for (std::size_t i = 0; i < received; ++i) answer.push_back(parts[i].to_string());
    return answer;
  }

 private:
  const KeyPair invite_;
  zmq::context_t context_{1};
  zmq::socket_t dealer_;
};

Caller::Caller(const KeyPair& invite) : impl_(std::make_unique<Impl>(invite)) {}
Caller::~Caller() = default;

Status Caller::dial(const std::string& endpoint, const protocol::PublicKey& door) {
  try {
    impl_->dial(endpoint, door);
  } catch (const zmq::error_t& error) {
    return fail("cannot dial {}: {}; expected tcp://ADDRESS:PORT", endpoint, error.what());
  }
  return {};
}

void Caller::ask(const std::string& text) { impl_->ask(text); }
std::vector<std::string> Caller::answer(Duration longest) { return impl_->answer(longest); }

}  // namespace isthmus::transport
