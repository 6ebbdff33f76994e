#include "wire/zmq_transport.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <zmq.hpp>

namespace isthmus {

namespace {

enum Lane : std::size_t { kControlLane, kBulkLane, kLanes };

constexpr const char* kDomain = "isthmus";
// Small, so that a gradient queued in front of the socket overtakes activations that have not reached it.
constexpr int kBulkHighWater = 4;
constexpr int kControlHighWater = 1000;
// What may wait for one peer before the oldest frames are dropped; the protocol asks for them again.
constexpr std::uint64_t kQueueBytesMax = std::uint64_t{1} << 30;
constexpr std::size_t kFramesPerPoll = 256;
// ZeroMQ's own limit is 1,023. A peer that was dialled takes three for each lane, two of them to watch it: a worker at the end of a
// pipeline with the largest stages (base/replicas_max.h) dials 383.
constexpr int kSocketsMax = 16'384;
// ZeroMQ reconnects by itself after a broken connection, but not after a refused handshake, which a peer gives until
// it has heard of this one: then the sockets are made anew, with growing patience.
constexpr Duration kPatienceMin = std::chrono::seconds(2);
constexpr Duration kPatienceMax = std::chrono::seconds(8);

Lane lane_of(Priority priority) { return priority == Priority::kControl ? kControlLane : kBulkLane; }

zmq::const_buffer raw(const std::array<std::uint8_t, 32>& key) { return {key.data(), key.size()}; }

// Settings every data socket shares.
void prepare(zmq::socket_t& socket, Lane lane, const KeyPair& keys) {
  const int high_water = lane == kControlLane ? kControlHighWater : kBulkHighWater;
  socket.set(zmq::sockopt::sndhwm, high_water);
  socket.set(zmq::sockopt::rcvhwm, high_water);
  socket.set(zmq::sockopt::linger, 500);
  socket.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(kFrameBytesMax));
  socket.set(zmq::sockopt::handshake_ivl, 10'000);
  socket.set(zmq::sockopt::tcp_keepalive, 1);
  socket.set(zmq::sockopt::tcp_keepalive_idle, 60);
  if (lane == kControlLane) {
    // Never on bulk: the timeout runs while one large frame is on its way.
    socket.set(zmq::sockopt::heartbeat_ivl, 5'000);
    socket.set(zmq::sockopt::heartbeat_timeout, 15'000);
    socket.set(zmq::sockopt::heartbeat_ttl, 20'000);
  }
  socket.set(zmq::sockopt::curve_publickey, raw(keys.public_key));
  socket.set(zmq::sockopt::curve_secretkey, raw(keys.secret_key));
}

struct MonitorEvent {
  std::uint16_t event = 0;
  std::int32_t value = 0;
};

// Reads a socket's connection events without a thread.
class Monitor {
 public:
  Monitor(zmq::context_t& context, zmq::socket_t& watched, const std::string& name)
      : watched_(watched.handle()), events_(context, zmq::socket_type::pair) {
    const std::string address = "inproc://monitor." + name;
    zmq_socket_monitor(watched.handle(), address.c_str(),
                       ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |
                           ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                           ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL);
    events_.set(zmq::sockopt::linger, 0);
    events_.connect(address);
  }
  ~Monitor() { zmq_socket_monitor(watched_, nullptr, 0); }
  Monitor(const Monitor&) = delete;

  std::optional<MonitorEvent> next() {
    zmq::message_t head, address;
    if (!events_.recv(head, zmq::recv_flags::dontwait)) return std::nullopt;
    (void)events_.recv(address, zmq::recv_flags::none);
    MonitorEvent event;
    if (head.size() < 6) return event;
    std::memcpy(&event.event, head.data<char>(), 2);
    std::memcpy(&event.value, head.data<char>() + 2, 4);
    return event;
  }
  zmq::socket_t& socket() { return events_; }

 private:
  void* watched_;
  zmq::socket_t events_;
};

// A connection this process made.
struct Dialled {
  Endpoints endpoints;
  PublicKey key{};
  std::array<zmq::socket_t, kLanes> sockets;
  std::array<std::unique_ptr<Monitor>, kLanes> monitors;
  // The other side learns who a connection belongs to from its first message, an empty one. The socket may have no
  // room for it yet when the handshake is reported.
  std::array<bool, kLanes> greet{};
  bool watched = false;
  Time since{};
  Duration patience{};
};

// A connection a peer made to this process's ROUTER.
struct Route {
  std::string id;
  int fd = -1;
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
    authenticator_.close();
    context_.close();
  }

  void bind() {
    context_.set(zmq::ctxopt::max_sockets, kSocketsMax);
    // A peer takes up to eight descriptors, and where they are counted out a process begins with 1,024.
    if (rlimit files{}; ::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
      files.rlim_cur = files.rlim_max;
      ::setrlimit(RLIMIT_NOFILE, &files);
    }
    // Without a handler ZeroMQ lets everybody in: the handler comes first, or nothing is bound at all.
    authenticator_ = zmq::socket_t(context_, zmq::socket_type::rep);
    authenticator_.set(zmq::sockopt::linger, 0);
    authenticator_.bind("inproc://zeromq.zap.01");
    for (const Lane lane : {kControlLane, kBulkLane}) {
      zmq::socket_t router(context_, zmq::socket_type::router);
      prepare(router, lane, options_.keys);
      router.set(zmq::sockopt::curve_server, 1);
      router.set(zmq::sockopt::zap_domain, kDomain);
      router.set(zmq::sockopt::router_mandatory, 1);
      router.set(zmq::sockopt::ipv6, 1);
      const bool given = lane == kBulkLane && options_.bulk_port != 0;
      const auto port = given                ? std::to_string(options_.bulk_port)
                        : options_.port == 0 ? std::string("*")
                                             : std::to_string(options_.port + lane);
      router.bind("tcp://" + options_.bind_host + ":" + port);
      (lane == kControlLane ? endpoints_.control : endpoints_.bulk) = router.get(zmq::sockopt::last_endpoint);
      router_monitors_[lane] = std::make_unique<Monitor>(context_, router, lane == kControlLane ? "control" : "bulk");
      routers_[lane] = std::move(router);
    }
  }

  const Endpoints& endpoints() const { return endpoints_; }
  std::uint64_t refused_keys() const { return refused_keys_; }
  std::uint64_t failed_handshakes() const { return failed_handshakes_; }

  void allow(PeerId peer, const PublicKey& key) { options_.roster.add(peer, key); }

  void connect(PeerId id, const Endpoints& endpoints, const PublicKey& key) {
    Peer& peer = peers_[id];
    if (peer.dialled && peer.dialled->endpoints == endpoints && peer.dialled->key == key) return;
    dial(id, peer, endpoints, key, kPatienceMin);
  }

  void dial(PeerId id, Peer& peer, const Endpoints endpoints, const PublicKey key, Duration patience) {
    if (peer.dialled)
      for (auto& monitor : peer.dialled->monitors) monitor.reset();
    // Whoever made the old connection: frames go over the new one only.
    for (const Lane lane : {kControlLane, kBulkLane}) {
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
    for (const Lane lane : {kControlLane, kBulkLane}) {
      zmq::socket_t dealer(context_, zmq::socket_type::dealer);
      prepare(dealer, lane, options_.keys);
      dealer.set(zmq::sockopt::curve_serverkey, raw(key));
      // Frames wait in front of the socket, not in a pipe to a connection that does not exist yet.
      dealer.set(zmq::sockopt::immediate, 1);
      dealer.set(zmq::sockopt::reconnect_ivl, 100);
      dealer.set(zmq::sockopt::reconnect_ivl_max, 3'000);
      dealer.set(zmq::sockopt::ipv6, 1);
      peer.dialled->monitors[lane] =
          std::make_unique<Monitor>(context_, dealer, fmt::format("dealer.{}", ++monitor_names_));
      try {
        dealer.connect(lane == kControlLane ? endpoints.control : endpoints.bulk);
      } catch (const zmq::error_t&) {
        // Another's word for where it lives; nonsense means it cannot be reached.
        ++failed_handshakes_;
      }
      peer.dialled->sockets[lane] = std::move(dealer);
    }
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
    authenticate();
    // Connection events first: a descriptor that was closed may already serve the next connection.
    watch_connections();
    redial();
    for (const Lane lane : {kControlLane, kBulkLane}) receive_routed(lane);
    for (auto& [id, peer] : peers_)
      if (peer.dialled)
        for (const Lane lane : {kControlLane, kBulkLane}) receive_dialled(id, peer, lane);
    for (auto& [id, peer] : peers_)
      for (const Lane lane : {kControlLane, kBulkLane}) drain(id, peer, lane);
    return std::exchange(events_, {});
  }

  std::uint64_t queued_bytes() const {
    std::uint64_t bytes = 0;
    for (const auto& [id, peer] : peers_) bytes += peer.queued_bytes;
    return bytes;
  }

  // Frames that no full socket holds back can leave at once.
  Time next_due() const {
    for (const auto& [id, peer] : peers_)
      for (std::size_t priority = 0; priority < peer.queues.size(); ++priority) {
        const Lane lane = lane_of(static_cast<Priority>(priority));
        if (!peer.queues[priority].empty() && peer.connected && peer.up[lane] && !peer.blocked[lane]) return Time{};
      }
    return kNever;
  }

  void wait(Duration longest, int fd) {
    std::vector<zmq::pollitem_t> items;
    const auto watch = [&](zmq::socket_t& socket, bool blocked) {
      items.push_back({socket.handle(), 0, static_cast<short>(ZMQ_POLLIN | (blocked ? ZMQ_POLLOUT : 0)), 0});
    };
    watch(authenticator_, false);
    for (const Lane lane : {kControlLane, kBulkLane}) {
      watch(routers_[lane], false);
      watch(router_monitors_[lane]->socket(), false);
    }
    bool route_blocked = false;
    for (auto& [id, peer] : peers_) {
      if (!peer.dialled) {
        route_blocked = route_blocked || peer.blocked[kControlLane] || peer.blocked[kBulkLane];
        continue;
      }
      for (const Lane lane : {kControlLane, kBulkLane}) {
        watch(peer.dialled->sockets[lane], peer.blocked[lane] && peer.up[lane]);
        watch(peer.dialled->monitors[lane]->socket(), false);
      }
    }
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
  // ZAP (ZeroMQ RFC 27): a key of the roster gets the peer's number as its User-Id, any other key gets nothing. 300 is
  // "not now": the other side closes and tries again, as it should when the view that names it is still on its way
  // here. After 400 a DEALER never comes back.
  void authenticate() {
    while (true) {
      std::vector<zmq::message_t> parts;
      zmq::message_t part;
      while (authenticator_.recv(part, zmq::recv_flags::dontwait)) {
        const bool more = part.more();
        parts.push_back(std::move(part));
        part = zmq::message_t();
        if (!more) break;
      }
      if (parts.empty()) return;
      std::optional<PeerId> peer;
      // version, request id, domain, address, identity, mechanism, credentials
      if (parts.size() == 7 && parts[5].to_string_view() == "CURVE" && parts[6].size() == 32) {
        PublicKey key;
        std::memcpy(key.data(), parts[6].data(), key.size());
        peer = options_.roster.peer_of(key);
      }
      if (!peer) ++refused_keys_;
      const std::string request = parts.size() > 1 ? parts[1].to_string() : "";
      const std::array<std::string, 6> reply = {"1.0", request, peer ? "200" : "300",
                                                peer ? "OK" : "key is not in the roster",
                                                peer ? fmt::format("{}", *peer) : "", ""};
      for (std::size_t i = 0; i < reply.size(); ++i)
        authenticator_.send(zmq::buffer(reply[i]),
                            i + 1 < reply.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
    }
  }

  void watch_connections() {
    for (const Lane lane : {kControlLane, kBulkLane})
      while (const auto event = router_monitors_[lane]->next())
        if (event->event == ZMQ_EVENT_DISCONNECTED) route_closed(lane, event->value);
    for (auto& [id, peer] : peers_) {
      if (!peer.dialled) continue;
      for (const Lane lane : {kControlLane, kBulkLane})
        while (const auto event = peer.dialled->monitors[lane]->next()) {
          if (event->event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
            peer.dialled->greet[lane] = true;
            lane_up(id, peer, lane);
          } else if (event->event == ZMQ_EVENT_DISCONNECTED) {
            lane_down(id, peer, lane);
          } else {
            ++failed_handshakes_;
          }
        }
    }
  }

  void redial() {
    for (auto& [id, peer] : peers_) {
      if (!peer.dialled) continue;
      // Patience begins with the first look at the connection, whenever connect() was called.
      if (peer.connected || !peer.dialled->watched) peer.dialled->since = now_;
      peer.dialled->watched = true;
      if (now_ - peer.dialled->since > peer.dialled->patience)
        dial(id, peer, peer.dialled->endpoints, peer.dialled->key, std::min(2 * peer.dialled->patience, kPatienceMax));
    }
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
      events_.push_back(PeerConnected{id});
    }
  }

  void lane_down(PeerId id, Peer& peer, Lane lane) {
    peer.up[lane] = false;
    peer.blocked[lane] = false;
    // What was under way is lost in part; the rest of it would be of no use.
    for (std::size_t priority = 0; priority < peer.queues.size(); ++priority)
      if (lane_of(static_cast<Priority>(priority)) == lane) {
        for (const auto& frame : peer.queues[priority]) peer.queued_bytes -= frame.bytes();
        peer.queues[priority].clear();
      }
    if (peer.connected) {
      peer.connected = false;
      events_.push_back(PeerDisconnected{id});
    }
  }

  void deliver(PeerId peer, Lane lane, zmq::message_t& head, zmq::message_t& payload) {
    Frame frame;
    frame.peer = peer;
    frame.priority = lane == kControlLane ? Priority::kControl : Priority::kActivation;
    frame.head.assign(head.data<std::uint8_t>(), head.data<std::uint8_t>() + head.size());
    if (payload.size() > 0) {
      frame.length = payload.size();
      frame.payload = share(Bytes(payload.data<std::uint8_t>(), payload.data<std::uint8_t>() + payload.size()));
    }
    events_.push_back(FrameReceived{std::move(frame)});
  }

  void receive_routed(Lane lane) {
    for (std::size_t n = 0; n < kFramesPerPoll; ++n) {
      zmq::message_t id, head, payload, extra;
      if (!routers_[lane].recv(id, zmq::recv_flags::dontwait)) return;
      std::size_t parts = 1;
      bool more = id.more();
      while (more) {
        zmq::message_t& part = parts == 1 ? head : parts == 2 ? payload : extra;
        (void)routers_[lane].recv(part, zmq::recv_flags::none);
        more = part.more();
        ++parts;
      }
      const char* user = nullptr;
      if (parts >= 2) user = zmq_msg_gets(head.handle(), "User-Id");
      if (!user || parts > 3) continue;
      const PeerId peer(static_cast<std::uint32_t>(std::strtoul(user, nullptr, 10)));
      if (head.size() == 0) {
        Route route{id.to_string(), zmq_msg_get(head.handle(), ZMQ_SRCFD)};
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
      zmq::message_t head, payload, extra;
      if (!peer.dialled->sockets[lane].recv(head, zmq::recv_flags::dontwait)) return;
      std::size_t parts = 1;
      bool more = head.more();
      while (more) {
        zmq::message_t& part = parts == 1 ? payload : extra;
        (void)peer.dialled->sockets[lane].recv(part, zmq::recv_flags::none);
        more = part.more();
        ++parts;
      }
      if (parts <= 2) deliver(id, lane, head, payload);
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
      if (lane_of(static_cast<Priority>(priority)) != lane) continue;
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
    zmq::socket_t& socket = peer.dialled ? peer.dialled->sockets[lane] : routers_[lane];
    try {
      if (!peer.dialled) {
        if (!socket.send(zmq::buffer(peer.routes[lane]->id), zmq::send_flags::sndmore | zmq::send_flags::dontwait)) {
          peer.blocked[lane] = true;
          return false;
        }
      }
      const bool has_payload = frame.length > 0;
      const auto flags = has_payload ? zmq::send_flags::sndmore | zmq::send_flags::dontwait : zmq::send_flags::dontwait;
      if (!socket.send(zmq::buffer(frame.head), flags)) {
        peer.blocked[lane] = true;
        return false;
      }
      if (has_payload) {
        // The message shares the payload until an I/O thread has encrypted it.
        auto* keep = new SharedBytes(frame.payload);
        zmq::message_t payload(const_cast<std::uint8_t*>(frame.payload->data()) + frame.offset, frame.length,
                               [](void*, void* hint) { delete static_cast<SharedBytes*>(hint); }, keep);
        socket.send(payload, zmq::send_flags::none);
      }
      return true;
    } catch (const zmq::error_t& error) {
      if (error.num() != EHOSTUNREACH) throw;
      peer.routes[lane].reset();
      lane_down(id, peer, lane);
      return false;
    }
  }

  Options options_;
  zmq::context_t context_{1};
  zmq::socket_t authenticator_;
  std::array<zmq::socket_t, kLanes> routers_;
  std::array<std::unique_ptr<Monitor>, kLanes> router_monitors_;
  Endpoints endpoints_;
  std::map<PeerId, Peer> peers_;
  std::vector<TransportEvent> events_;
  Time now_{};
  std::uint64_t monitor_names_ = 0;
  std::uint64_t refused_keys_ = 0;
  std::uint64_t failed_handshakes_ = 0;
};

ZmqTransport::ZmqTransport(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqTransport::~ZmqTransport() = default;

Result<std::unique_ptr<ZmqTransport>> ZmqTransport::open(Options options) {
  const std::string host = options.bind_host;
  const int port = options.port;
  auto impl = std::make_unique<Impl>(std::move(options));
  try {
    impl->bind();
  } catch (const zmq::error_t& error) {
    if (error.num() == EADDRINUSE)
      return fail("port {} or {} on {} is in use; choose another with --port, or 0 for any free one", port, port + 1,
                  host);
    return fail("cannot listen on {}: {}", host, error.what());
  }
  return std::unique_ptr<ZmqTransport>(new ZmqTransport(std::move(impl)));
}

Endpoints ZmqTransport::endpoints() const { return impl_->endpoints(); }
void ZmqTransport::allow(PeerId peer, const PublicKey& key) { impl_->allow(peer, key); }
void ZmqTransport::connect(PeerId peer, const Endpoints& endpoints, const PublicKey& key) {
  impl_->connect(peer, endpoints, key);
}
void ZmqTransport::send(Frame frame) { impl_->send(std::move(frame)); }
std::vector<TransportEvent> ZmqTransport::poll(Time now) { return impl_->poll(now); }
Time ZmqTransport::next_due() const { return impl_->next_due(); }
std::uint64_t ZmqTransport::queued_bytes() const { return impl_->queued_bytes(); }
void ZmqTransport::wait(Duration longest, int fd) { impl_->wait(longest, fd); }
std::uint64_t ZmqTransport::refused_keys() const { return impl_->refused_keys(); }
std::uint64_t ZmqTransport::failed_handshakes() const { return impl_->failed_handshakes(); }

}  // namespace isthmus
