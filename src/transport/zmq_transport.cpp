#include "transport/zmq_transport.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <zmq.hpp>

#include "transport/curve_sockets.h"
#include "transport/dial_patience.h"
#include "transport/frame_parts.h"
#include "transport/listen_error.h"
#include "transport/socket_monitor.h"
#include "transport/zap_authenticator.h"

namespace isthmus::transport {

namespace {

// What may wait for one peer before the oldest frames are dropped; the protocol asks for them again.
constexpr std::uint64_t kQueueBytesMax = std::uint64_t{1} << 30;
constexpr std::size_t kFramesPerPoll = 256;
// ZeroMQ's own limit is 1,023. A peer that was dialled takes three for each lane, two of them to watch it: a worker at
// the end of a pipeline with the largest stages (base/replicas_max.h) dials 383.
constexpr int kSocketsMax = 16'384;
// A connection this process made.
struct Dialled {
  protocol::Endpoints endpoints;
  protocol::PublicKey key{};
  std::array<zmq::socket_t, kLanes> sockets;
  std::array<std::unique_ptr<SocketMonitor>, kLanes> monitors;
  // The other side learns who a connection belongs to from its first message, an empty one. The socket may have no
  // room for it yet when the handshake is reported.
  std::array<bool, kLanes> greet{};
  bool watched = false;
  bool anew = false;  // both lanes are to be dialled again
  Time since{};
  bool refused = false;  // since then
  DialPatience patience;
};

// A connection a peer made to this process's ROUTER.
struct Route {
  std::string id;
  int fd = -1;
  std::string address;
};

struct Peer {
  std::optional<Dialled> dialled;
  std::array<std::optional<Route>, kLanes> routes;
  std::array<bool, kLanes> up{};
  bool connected = false;
  std::array<std::deque<Frame>, 4> queues;  // by priority
  std::uint64_t queued_bytes = 0;
  std::array<bool, kLanes> blocked{};  // the socket was full
};

}  // namespace

class ZmqTransport::Impl {
 public:
  explicit Impl(Options options) : options_(std::move(options)) {}

  ~Impl() {
    for (auto& monitor : router_monitors_) monitor.reset();
    peers_.clear();
    for (auto& router : routers_) router.close();
    authenticator_.reset();
    context_.close();
  }

  void bind() {
    context_.set(zmq::ctxopt::max_sockets, kSocketsMax);
    // A peer takes up to eight descriptors, and where they are counted out a process begins with 1,024.
    if (rlimit files{}; ::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
      files.rlim_cur = files.rlim_max;
      ::setrlimit(RLIMIT_NOFILE, &files);
    }
    // The view that names the other side may still be on its way here; who is refused comes again (DialPatience).
    authenticator_.emplace(context_, ZapAuthenticator::Rule{[this](const protocol::PublicKey& key) {
                                                              const auto peer = options_.roster.peer_of(key);
                                                              return peer ? std::optional(fmt::format("{}", *peer))
                                                                          : std::nullopt;
                                                            },
                                                            "key is not in the roster"});
    for (const Lane lane : kBothLanes) {
      zmq::socket_t router = make_router(context_, lane, options_.keys);
      binding_ = {options_.bind_host, options_.port == 0 ? 0 : options_.port + static_cast<std::uint32_t>(lane)};
      router.bind("tcp://" + options_.bind_host + ":" + (binding_.port == 0 ? "*" : std::to_string(binding_.port)));
      (lane == kControlLane ? endpoints_.control : endpoints_.bulk) = bound_endpoint(router);
      router_monitors_[lane] =
          std::make_unique<SocketMonitor>(context_, router, lane == kControlLane ? "control" : "bulk");
      routers_[lane] = std::move(router);
    }
  }

  const ListenAddress& binding() const { return binding_; }
  const protocol::Endpoints& endpoints() const { return endpoints_; }
  Refused refused() const { return {authenticator_->refused(), refused_handshakes_}; }
  std::uint64_t failed_handshakes() const { return failed_handshakes_; }

  void allow(PeerId peer, const protocol::PublicKey& key) { options_.roster.add(peer, key); }

  void shut_out(PeerId id) {
    options_.roster.remove(id);
    const auto at = peers_.find(id);
    if (at == peers_.end()) return;
    // A ROUTER cannot close one of its connections; what still comes over it belongs to nobody any more.
    for (const Lane lane : kBothLanes) lane_down(id, at->second, lane);
    if (at->second.dialled) hang_up(at->second);
    peers_.erase(at);
  }

  void connect(PeerId id, const protocol::Endpoints& endpoints, const protocol::PublicKey& key) {
    Peer& peer = peers_[id];
    if (peer.dialled && peer.dialled->endpoints == endpoints && peer.dialled->key == key) return;
    dial(id, peer, endpoints, key, {});
  }

  void dial(PeerId id, Peer& peer, const protocol::Endpoints endpoints, const protocol::PublicKey key,
            DialPatience patience) {
    if (peer.dialled)
      for (auto& monitor : peer.dialled->monitors) monitor.reset();
    // Whoever made the old connection: frames go over the new one only.
    for (const Lane lane : kBothLanes) {
      peer.routes[lane].reset();
      if (peer.connected)
        lane_down(id, peer, lane);
      else
        peer.up[lane] = peer.blocked[lane] = false;
    }
    peer.dialled.emplace();
    peer.dialled->endpoints = endpoints;
    peer.dialled->key = key;
    peer.dialled->since = now_;
    peer.dialled->patience = patience;
    for (const Lane lane : kBothLanes) {
      zmq::socket_t dealer = make_dealer(context_, lane, options_.keys, key);
      peer.dialled->monitors[lane] =
          std::make_unique<SocketMonitor>(context_, dealer, fmt::format("dealer.{}", ++monitor_names_));
      try {
        dealer.connect(lane == kControlLane ? endpoints.control : endpoints.bulk);
      } catch (const zmq::error_t&) {
        // Another's word for where it lives; nonsense means it cannot be reached.
        ++failed_handshakes_;
      }
      peer.dialled->sockets[lane] = std::move(dealer);
    }
  }

  void dial_again() {
    for (auto& [id, peer] : peers_)
      if (peer.dialled) dial(id, peer, peer.dialled->endpoints, peer.dialled->key, {});
  }

  void send(Frame frame) {
    Peer& peer = peers_[frame.peer];
    peer.queued_bytes += frame.bytes();
    peer.queues[static_cast<std::size_t>(frame.priority)].push_back(std::move(frame));
    for (auto& queue : peer.queues)
      while (peer.queued_bytes > kQueueBytesMax && !queue.empty()) {
        peer.queued_bytes -= queue.front().bytes();
        queue.pop_front();
      }
  }

  std::vector<TransportEvent> poll(Time now) {
    now_ = now;
    authenticator_->answer();
    // Connection events first: a descriptor that was closed may already serve the next connection.
    watch_connections();
    redial();
    for (const Lane lane : kBothLanes) receive_routed(lane);
    for (auto& [id, peer] : peers_)
      if (peer.dialled)
        for (const Lane lane : kBothLanes) receive_dialled(id, peer, lane);
    for (auto& [id, peer] : peers_)
      for (const Lane lane : kBothLanes) drain(id, peer, lane);
    return std::exchange(events_, {});
  }

  std::uint64_t queued_bytes() const {
    std::uint64_t bytes = 0;
    for (const auto& [id, peer] : peers_) bytes += peer.queued_bytes;
    return bytes;
  }

  // Frames that no full socket holds back can leave at once.
  Time next_due() const {
    Time due = kNever;
    for (const auto& [id, peer] : peers_) {
      if (peer.dialled && peer.dialled->refused && !peer.connected) due = std::min(due, redials_at(*peer.dialled));
      for (std::size_t priority = 0; priority < peer.queues.size(); ++priority) {
        const Lane lane = lane_of(static_cast<protocol::Priority>(priority));
        if (!peer.queues[priority].empty() && peer.connected && peer.up[lane] && !peer.blocked[lane]) return Time{};
      }
    }
    return due;
  }

  void wait(Duration longest, std::span<const int> descriptors) {
    std::vector<zmq::pollitem_t> items;
    const auto watch = [&](zmq::socket_t& socket, bool blocked) {
      items.push_back({socket.handle(), 0, static_cast<short>(ZMQ_POLLIN | (blocked ? ZMQ_POLLOUT : 0)), 0});
    };
    watch(authenticator_->socket(), false);
    for (const Lane lane : kBothLanes) {
      watch(routers_[lane], false);
      watch(router_monitors_[lane]->socket(), false);
    }
    bool route_blocked = false;
    for (auto& [id, peer] : peers_) {
      if (!peer.dialled) {
        route_blocked = route_blocked || peer.blocked[kControlLane] || peer.blocked[kBulkLane];
        continue;
      }
      for (const Lane lane : kBothLanes) {
        watch(peer.dialled->sockets[lane], peer.blocked[lane] && peer.up[lane]);
        watch(peer.dialled->monitors[lane]->socket(), false);
      }
    }
    for (const int fd : descriptors)
      if (fd >= 0) items.push_back({nullptr, fd, ZMQ_POLLIN, 0});
    // A ROUTER cannot say which of its peers has room again: look often.
    if (route_blocked) longest = std::min<Duration>(longest, std::chrono::milliseconds(2));
    const auto whole = std::chrono::ceil<std::chrono::milliseconds>(std::min<Duration>(longest, std::chrono::hours(1)));
    try {
      zmq::poll(items, whole);
    } catch (const zmq::error_t& error) {
      if (error.num() != EINTR) throw;
    }
  }

 private:
  void watch_connections() {
    for (const Lane lane : kBothLanes)
      while (const auto event = router_monitors_[lane]->next()) {
        if (event->kind == SocketEvent::Kind::kClosed) route_closed(lane, event->descriptor);
        // Refused keys are the authenticator's to count.
        if (event->kind == SocketEvent::Kind::kNoHandshake) ++refused_handshakes_;
      }
    for (auto& [id, peer] : peers_) {
      if (!peer.dialled) continue;
      for (const Lane lane : kBothLanes)
        while (const auto event = peer.dialled->monitors[lane]->next()) {
          if (event->kind == SocketEvent::Kind::kReady) {
            peer.dialled->greet[lane] = true;
            lane_up(id, peer, lane);
          } else if (event->kind == SocketEvent::Kind::kClosed) {
            // What broke one lane broke the other, which may take half a minute to show it.
            peer.dialled->anew = peer.dialled->anew || peer.up[lane];
            lane_down(id, peer, lane);
          } else {
            ++failed_handshakes_;
            if (!std::exchange(peer.dialled->refused, true)) peer.dialled->since = now_;
          }
        }
    }
  }

  void redial() {
    for (auto& [id, peer] : peers_) {
      if (!peer.dialled) continue;
      if (peer.dialled->anew) {
        dial(id, peer, peer.dialled->endpoints, peer.dialled->key, {});
        continue;
      }
      // Patience begins with the first look at the connection, whenever connect() was called.
      if (peer.connected || !peer.dialled->watched) peer.dialled->since = now_;
      peer.dialled->watched = true;
      if (now_ >= redials_at(*peer.dialled))
        dial(id, peer, peer.dialled->endpoints, peer.dialled->key,
             peer.dialled->patience.longer(peer.dialled->refused));
    }
  }

  static Time redials_at(const Dialled& dialled) {
    return dialled.since + (dialled.refused ? dialled.patience.refusal : dialled.patience.silence);
  }

  void hang_up(Peer& peer) {
    for (auto& monitor : peer.dialled->monitors) monitor.reset();
    peer.dialled.reset();
    peer.up = peer.blocked = {};
  }

  void route_closed(Lane lane, int fd) {
    for (auto& [id, peer] : peers_)
      if (peer.routes[lane] && peer.routes[lane]->fd == fd) {
        peer.routes[lane].reset();
        lane_down(id, peer, lane);
      }
  }

  void lane_up(PeerId id, Peer& peer, Lane lane) {
    if (peer.up[lane] && peer.connected) events_.push_back(PeerDisconnected{id});
    if (peer.up[lane]) peer.connected = false;
    peer.up[lane] = true;
    peer.blocked[lane] = false;
    if (peer.up[kControlLane] && peer.up[kBulkLane] && !peer.connected) {
      peer.connected = true;
      const auto& route = peer.routes[kControlLane];
      events_.push_back(PeerConnected{id, route ? route->address : ""});
    }
  }

  void lane_down(PeerId id, Peer& peer, Lane lane) {
    peer.up[lane] = false;
    peer.blocked[lane] = false;
    // What was under way is lost in part; the rest of it would be of no use.
    for (std::size_t priority = 0; priority < peer.queues.size(); ++priority)
      if (lane_of(static_cast<protocol::Priority>(priority)) == lane) {
        for (const auto& frame : peer.queues[priority]) peer.queued_bytes -= frame.bytes();
        peer.queues[priority].clear();
      }
    if (peer.connected) {
      peer.connected = false;
      events_.push_back(PeerDisconnected{id});
    }
  }

  void deliver(PeerId peer, Lane lane, const zmq::message_t& head, const zmq::message_t& payload) {
    const auto priority = lane == kControlLane ? protocol::Priority::kControl : protocol::Priority::kActivation;
    events_.push_back(FrameReceived{make_frame(peer, priority, head, payload)});
  }

  void receive_routed(Lane lane) {
    for (std::size_t n = 0; n < kFramesPerPoll; ++n) {
      std::array<zmq::message_t, 3> message;
      auto& [id, head, payload] = message;
      const std::size_t parts = receive_parts(routers_[lane], message);
      if (parts == 0) return;
      const char* user = parts >= 2 ? zmq_msg_gets(head.handle(), "User-Id") : nullptr;
      if (!user || parts > message.size()) continue;
      const PeerId peer(static_cast<std::uint32_t>(std::strtoul(user, nullptr, 10)));
      if (!options_.roster.knows(peer)) continue;  // shut out since it connected
      if (head.size() == 0) {
        const char* address = zmq_msg_gets(head.handle(), "Peer-Address");
        Route route{id.to_string(), zmq_msg_get(head.handle(), ZMQ_SRCFD), address ? address : ""};
        Peer& known = peers_[peer];
        // A peer that took another place may call where it was called before.
        if (known.dialled && !known.connected) hang_up(known);
        known.routes[lane] = std::move(route);
        lane_up(peer, known, lane);
      } else {
        deliver(peer, lane, head, payload);
      }
    }
  }

  void receive_dialled(PeerId id, Peer& peer, Lane lane) {
    for (std::size_t n = 0; n < kFramesPerPoll; ++n) {
      std::array<zmq::message_t, 2> message;
      const std::size_t parts = receive_parts(peer.dialled->sockets[lane], message);
      if (parts == 0) return;
      if (parts <= message.size()) deliver(id, lane, message[0], message[1]);
    }
  }

  // Hands queued frames to the socket, most urgent first, until it is full.
  void drain(PeerId id, Peer& peer, Lane lane) {
    if (!peer.up[lane]) return;
    peer.blocked[lane] = false;
    if (peer.dialled && peer.dialled->greet[lane]) {
      if (!peer.dialled->sockets[lane].send(zmq::message_t(), zmq::send_flags::dontwait)) {
        peer.blocked[lane] = true;
        return;
      }
      peer.dialled->greet[lane] = false;
    }
    // Until both lanes are up the connection may still be made anew, and what was sent on one would be lost.
    if (!peer.connected) return;
    for (std::size_t priority = 0; priority < peer.queues.size(); ++priority) {
      if (lane_of(static_cast<protocol::Priority>(priority)) != lane) continue;
      auto& queue = peer.queues[priority];
      while (!queue.empty()) {
        if (!put(id, peer, lane, queue.front())) return;
        peer.queued_bytes -= queue.front().bytes();
        queue.pop_front();
      }
    }
  }

  // False if the frame has to wait or its connection is gone.
  bool put(PeerId id, Peer& peer, Lane lane, const Frame& frame) {
    try {
      const bool sent = peer.dialled ? send_frame(peer.dialled->sockets[lane], nullptr, frame)
                                     : send_frame(routers_[lane], &peer.routes[lane]->id, frame);
      if (!sent) peer.blocked[lane] = true;
      return sent;
    } catch (const zmq::error_t& error) {
      if (error.num() != EHOSTUNREACH) throw;
      peer.routes[lane].reset();
      lane_down(id, peer, lane);
      return false;
    }
  }

  Options options_;
  zmq::context_t context_{1};
  std::optional<ZapAuthenticator> authenticator_;  // once bound
  std::array<zmq::socket_t, kLanes> routers_;
  std::array<std::unique_ptr<SocketMonitor>, kLanes> router_monitors_;
  ListenAddress binding_;  // the last address that was tried
  protocol::Endpoints endpoints_;
  std::map<PeerId, Peer> peers_;
  std::vector<TransportEvent> events_;
  Time now_{};
  std::uint64_t monitor_names_ = 0;
  std::uint64_t refused_handshakes_ = 0;
  std::uint64_t failed_handshakes_ = 0;
};

ZmqTransport::ZmqTransport(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqTransport::~ZmqTransport() = default;

Result<std::unique_ptr<ZmqTransport>> ZmqTransport::open(Options options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  try {
    impl->bind();
  } catch (const zmq::error_t& error) {
    return tl::unexpected(listen_error(impl->binding(), error.num()));
  }
  return std::unique_ptr<ZmqTransport>(new ZmqTransport(std::move(impl)));
}

protocol::Endpoints ZmqTransport::endpoints() const { return impl_->endpoints(); }
void ZmqTransport::allow(PeerId peer, const protocol::PublicKey& key) { impl_->allow(peer, key); }
void ZmqTransport::shut_out(PeerId peer) { impl_->shut_out(peer); }
void ZmqTransport::connect(PeerId peer, const protocol::Endpoints& endpoints, const protocol::PublicKey& key) {
  impl_->connect(peer, endpoints, key);
}
void ZmqTransport::dial_again() { impl_->dial_again(); }
void ZmqTransport::send(Frame frame) { impl_->send(std::move(frame)); }
std::vector<TransportEvent> ZmqTransport::poll(Time now) { return impl_->poll(now); }
Time ZmqTransport::next_due() const { return impl_->next_due(); }
std::uint64_t ZmqTransport::queued_bytes() const { return impl_->queued_bytes(); }
void ZmqTransport::wait(Duration longest, std::span<const int> descriptors) { impl_->wait(longest, descriptors); }
ZmqTransport::Refused ZmqTransport::refused() const { return impl_->refused(); }
std::uint64_t ZmqTransport::failed_handshakes() const { return impl_->failed_handshakes(); }

}  // namespace isthmus::transport
