#include "transport/dial_back.h"

#include <algorithm>
#include <array>
#include <list>
#include <optional>
#include <string>
#include <utility>
#include <zmq.hpp>

#include "transport/curve_sockets.h"
#include "transport/socket_monitor.h"

namespace isthmus::transport {

namespace {

constexpr Duration kLookAgain = std::chrono::milliseconds(20);

// One worker's two sockets.
struct Attempt {
  PeerId peer;
  protocol::Endpoints endpoints;
  protocol::PublicKey key{};
  std::optional<Time> give_up;  // once it is dialled
  std::array<zmq::socket_t, kLanes> sockets;
  std::array<std::unique_ptr<SocketMonitor>, kLanes> monitors;
  std::array<bool, kLanes> answered{};

  ~Attempt() {
    for (auto& monitor : monitors) monitor.reset();
  }
};

}  // namespace

class DialBack::Impl {
 public:
  // A socket, its monitor and the other end of that, for each lane; those that were closed linger a little.
  explicit Impl(const Options& options) : options_(options) {
    context_.set(zmq::ctxopt::max_sockets, static_cast<int>(4 * 3 * kLanes * options.at_once));
  }

  void begin(PeerId peer, const protocol::Endpoints& endpoints, const protocol::PublicKey& key) {
    attempts_.remove_if([&](const Attempt& attempt) { return attempt.peer == peer; });
    Attempt& attempt = attempts_.emplace_back();
    attempt.peer = peer;
    attempt.endpoints = endpoints;
    attempt.key = key;
  }

  std::vector<Result> poll(Time now) {
    std::vector<Result> results;
    std::size_t under_way = 0;
    for (auto at = attempts_.begin(); at != attempts_.end() && under_way < options_.at_once;) {
      const bool dialled = at->give_up || dial(*at, now);
      if (dialled) listen(*at);
      const bool answered = at->answered[kControlLane] && at->answered[kBulkLane];
      if (answered || !dialled || now >= *at->give_up) {
        results.push_back({at->peer, at->endpoints, answered});
        at = attempts_.erase(at);
      } else {
        ++under_way;
        ++at;
      }
    }
    return results;
  }

  bool empty() const { return attempts_.empty(); }

 private:
  bool dial(Attempt& attempt, Time now) {
    attempt.give_up = now + options_.patience;
    try {
      for (const Lane lane : kBothLanes) {
        zmq::socket_t& socket = attempt.sockets[lane];
        socket = make_dealer(context_, lane, options_.keys, attempt.key);
        socket.set(zmq::sockopt::linger, 0);
        attempt.monitors[lane] = std::make_unique<SocketMonitor>(context_, socket, "back." + std::to_string(++names_));
        socket.connect(lane == kControlLane ? attempt.endpoints.control : attempt.endpoints.bulk);
      }
    } catch (const zmq::error_t&) {
      return false;  // a stranger's word, and no address; or no socket is left
    }
    return true;
  }
  static void listen(Attempt& attempt) {
    for (const Lane lane : kBothLanes)
      while (const auto event = attempt.monitors[lane]->next())
        attempt.answered[lane] = attempt.answered[lane] || event->kind == SocketEvent::Kind::kReady;
  }

  const Options options_;
  zmq::context_t context_{1};
  std::list<Attempt> attempts_;
  std::uint64_t names_ = 0;
};

DialBack::DialBack(const Options& options) : impl_(std::make_unique<Impl>(options)) {}
DialBack::~DialBack() = default;
void DialBack::begin(PeerId peer, const protocol::Endpoints& endpoints, const protocol::PublicKey& key) {
  impl_->begin(peer, endpoints, key);
}
std::vector<DialBack::Result> DialBack::poll(Time now) { return impl_->poll(now); }
Time DialBack::next_due(Time now) const { return impl_->empty() ? kNever : now + kLookAgain; }

}  // namespace isthmus::transport
