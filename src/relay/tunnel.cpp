#include "relay/tunnel.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "relay/hello.h"
#include "relay/joint.h"
#include "relay/numeric_endpoint.h"

namespace isthmus::relay {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Failure = boost::system::error_code;

// A relay that says nothing for so long is gone. Routers forget a silent connection after half a minute or more.
constexpr auto kSign = std::chrono::seconds(10), kSilent = std::chrono::seconds(25);
// Registering may take its time. A call has to be answered before ZeroMQ, or the rule of who dials, tries another way.
constexpr std::chrono::milliseconds kAnswer(10'000), kCallAnswer(1800);
constexpr std::size_t kAnswersMost = 256;  // calls that are being answered
constexpr auto kAgainMin = std::chrono::milliseconds(200), kAgainMax = std::chrono::milliseconds(5000);

// An outbound stream, from dialling to the relay's verdict.
class Errand : public std::enable_shared_from_this<Errand> {
 public:
  // The stream, once it is welcome; otherwise why not, for people.
  using Done = std::function<void(std::optional<tcp::socket>, const std::string&)>;
  static constexpr const char* kSilence = "it does not answer";
  Errand(asio::io_context& context, const RelayPass& relay, const Hello& hello, std::chrono::milliseconds patience,
         Done done)
      : patience_(patience),
        socket_(context),
        deadline_(context),
        relay_(relay),
        hello_(hello),
        done_(std::move(done)) {}

  void start() {
    const auto endpoint = numeric_endpoint(relay_.address);
    if (!endpoint) return end("its address is none");
    deadline_.expires_after(patience_);
    deadline_.async_wait([self = shared_from_this()](Failure stopped) {
      if (!stopped) self->end(kSilence);
    });
    socket_.async_connect(*endpoint, [self = shared_from_this()](Failure failure) {
      if (failure) return self->end(failure.message());
      set_options(self->socket_);
      self->read_greeting();
    });
  }

 private:
  void read_greeting() {
    asio::async_read(socket_, asio::buffer(greeting_), [self = shared_from_this()](Failure failure, std::size_t) {
      if (failure) return self->end(failure.message());
      const auto greeting = decode_greeting(self->greeting_);
      if (!greeting) return self->end("it is no relay of this version");
      self->said_ = encode_hello(self->hello_, self->relay_.pass, greeting->nonce);
      asio::async_write(self->socket_, asio::buffer(self->said_), [self](Failure broken, std::size_t) {
        if (broken) return self->end(broken.message());
        asio::async_read(self->socket_, asio::buffer(self->verdict_), [self](Failure cut, std::size_t) {
          if (cut) return self->end(cut.message());
          self->end(self->verdict_[0] == 0 ? "" : sentence(static_cast<Verdict>(self->verdict_[0])));
        });
      });
    });
  }
  void end(const std::string& why) {
    const auto done = std::exchange(done_, {});
    if (!done) return;
    deadline_.cancel();
    if (why.empty()) return done(std::move(socket_), why);
    Failure ignored;
    socket_.close(ignored);
    done(std::nullopt, why);
  }

  const std::chrono::milliseconds patience_;
  tcp::socket socket_;
  asio::steady_timer deadline_;
  const RelayPass relay_;
  const Hello hello_;
  Done done_;
  std::array<std::uint8_t, kGreetingBytes> greeting_{};
  Bytes said_;
  std::array<std::uint8_t, 1> verdict_{};
};

}  // namespace

class Tunnel::Impl {
 public:
  explicit Impl(const protocol::Endpoints& own) {
    for (const std::string& endpoint : {own.control, own.bulk}) own_.push_back(numeric_endpoint(endpoint));
    thread_ = std::thread([this] {
      const auto guard = asio::make_work_guard(context_);
      context_.run();
    });
  }

  ~Impl() {
    asio::post(context_, [this] { context_.stop(); });
    thread_.join();
    for (auto& weak : joints_)
      if (const auto joint = weak.lock()) joint->close();
  }

  bool has_sockets() const { return own_[0] && own_[1]; }

  void use(std::vector<RelayPass> relays) {
    asio::post(context_, [this, relays = std::move(relays)]() mutable { take(std::move(relays)); });
  }

  void again() {
    asio::post(context_, [this] {
      for (const auto& relay : relays_) {
        relay->patience = kAgainMin;
        lost(relay);
      }
    });
  }

  Result<protocol::Endpoints> towards(PeerId peer) {
    const std::lock_guard lock(mutex_);
    if (const auto known = towards_.find(peer); known != towards_.end()) return known->second;
    protocol::Endpoints endpoints;
    for (const std::uint8_t lane : {0, 1}) {
      auto acceptor = std::make_shared<tcp::acceptor>(context_);
      Failure failure;
      acceptor->open(tcp::v4(), failure);
      if (!failure) acceptor->bind({asio::ip::address_v4::loopback(), 0}, failure);
      if (!failure) acceptor->listen(4, failure);
      if (failure) return fail("no loopback port for the way to worker {}: {}", peer, failure.message());
      (lane == 0 ? endpoints.control : endpoints.bulk) =
          fmt::format("tcp://127.0.0.1:{}", acceptor->local_endpoint().port());
      asio::post(context_, [this, acceptor, peer, lane] { accept(acceptor, peer, lane); });
    }
    towards_[peer] = endpoints;
    return endpoints;
  }

  Figures figures() const {
    const std::lock_guard lock(mutex_);
    return {registered_, relays_count_, bytes_, trouble_};
  }

 private:
  // One relay: this worker's registration there.
  struct Relay {
    explicit Relay(asio::io_context& context, RelayPass p) : pass(std::move(p)), again(context), sign(context) {}
    RelayPass pass;
    std::shared_ptr<tcp::socket> socket;  // registered; what is under way on it keeps it
    asio::steady_timer again, sign;
    std::chrono::milliseconds patience = kAgainMin;
    std::array<std::uint8_t, kRingBytes> ring{};
    std::chrono::steady_clock::time_point heard{};
    bool gone = false;
  };
  using RelayPtr = std::shared_ptr<Relay>;

  void take(std::vector<RelayPass> passes) {
    std::vector<RelayPtr> next;
    for (auto& pass : passes) {
      const auto known =
          std::ranges::find_if(relays_, [&](const RelayPtr& r) { return r->pass.address == pass.address; });
      if (known != relays_.end()) {
        (*known)->pass = std::move(pass);
        next.push_back(*known);
      } else {
        next.push_back(std::make_shared<Relay>(context_, std::move(pass)));
        enlist(next.back());
      }
    }
    for (const auto& relay : relays_)
      if (std::ranges::find(next, relay) == next.end()) {
        relay->gone = true;
        hang_up(relay);
      }
    relays_ = std::move(next);
    count();
  }

  void enlist(const RelayPtr& relay) {
    if (relay->gone) return;
    errand(relay->pass, {Kind::kRegister}, kAnswer,
           [this, relay](std::optional<tcp::socket> socket, const std::string& why) {
             if (relay->gone) return;
             if (!socket) {
               note(fmt::format("relay {}: {}", relay->pass.address, why));
               relay->again.expires_after(relay->patience);
               relay->patience = std::min<std::chrono::milliseconds>(2 * relay->patience, kAgainMax);
               relay->again.async_wait([this, relay](Failure stopped) {
                 if (!stopped) enlist(relay);
               });
               return;
             }
             relay->socket = std::make_shared<tcp::socket>(std::move(*socket));
             relay->heard = std::chrono::steady_clock::now();
             note("");
             count();
             listen_to(relay);
             show_life(relay);
           });
  }

  void listen_to(const RelayPtr& relay) {
    const auto socket = relay->socket;
    asio::async_read(*socket, asio::buffer(relay->ring), [this, relay, socket](Failure failure, std::size_t) {
      if (relay->gone || relay->socket != socket) return;
      const auto ring = failure ? std::nullopt : decode_ring(relay->ring);
      if (!ring) return lost(relay);
      relay->heard = std::chrono::steady_clock::now();
      relay->patience = kAgainMin;
      if (ring->call != 0) answer(relay->pass, *ring);
      listen_to(relay);
    });
  }

  void show_life(const RelayPtr& relay) {
    relay->sign.expires_after(kSign);
    relay->sign.async_wait([this, relay](Failure stopped) {
      if (stopped || relay->gone || !relay->socket) return;
      if (std::chrono::steady_clock::now() - relay->heard > kSilent) return lost(relay);
      static constexpr std::array<std::uint8_t, 1> kByte = {0};
      const auto socket = relay->socket;
      asio::async_write(*socket, asio::buffer(kByte), [this, relay, socket](Failure failure, std::size_t) {
        if (relay->socket != socket || relay->gone) return;
        if (failure) return lost(relay);
        show_life(relay);
      });
    });
  }

  // Not at once: two that are registered as one would drive each other out at the speed of the network.
  void lost(const RelayPtr& relay) {
    hang_up(relay);
    count();
    relay->again.expires_after(relay->patience);
    relay->patience = std::min<std::chrono::milliseconds>(2 * relay->patience, kAgainMax);
    relay->again.async_wait([this, relay](Failure stopped) {
      if (!stopped) enlist(relay);
    });
  }
  static void hang_up(const RelayPtr& relay) {
    Failure ignored;
    if (relay->socket) relay->socket->close(ignored);
    relay->socket.reset();
    relay->sign.cancel();
    relay->again.cancel();
  }

  // Somebody called: its stream is joined to this worker's own socket.
  void answer(const RelayPass& pass, const Ring& ring) {
    if (answers_ >= kAnswersMost) return note("more calls through a relay than are answered at once");
    ++answers_;
    Hello hello{Kind::kAccept, ring.lane};
    hello.call = ring.call;
    const auto own = own_[ring.lane];
    errand(pass, hello, kCallAnswer, [this, own](std::optional<tcp::socket> stream, const std::string& why) {
      --answers_;
      if (!stream) return note("a call through a relay came to nothing: " + why);
      auto socket = std::make_shared<tcp::socket>(context_);
      auto other = std::make_shared<tcp::socket>(std::move(*stream));
      socket->async_connect(*own, [this, socket, other](Failure failure) {
        if (!failure) join(std::move(*socket), std::move(*other));
      });
    });
  }

  void accept(const std::shared_ptr<tcp::acceptor>& acceptor, PeerId peer, std::uint8_t lane) {
    acceptor->async_accept([this, acceptor, peer, lane](Failure failure, tcp::socket socket) {
      if (failure == asio::error::operation_aborted) return;
      if (!failure) call(std::make_shared<tcp::socket>(std::move(socket)), peer, lane, in_reach_first());
      if (!failure) return accept(acceptor, peer, lane);
      // No descriptor is left.
      const auto rest = std::make_shared<asio::steady_timer>(context_, kAgainMin);
      rest->async_wait([this, rest, acceptor, peer, lane](Failure) { accept(acceptor, peer, lane); });
    });
  }

  // A relay that is not registered at may be gone, and would be waited for.
  std::vector<RelayPass> in_reach_first() const {
    std::vector<RelayPass> passes;
    for (const bool registered : {true, false})
      for (const auto& relay : relays_)
        if ((relay->socket != nullptr) == registered) passes.push_back(relay->pass);
    return passes;
  }

  // Tries one relay after the other. If all refuse, the loopback connection ends, and ZeroMQ makes it again.
  void call(const std::shared_ptr<tcp::socket>& inner, PeerId peer, std::uint8_t lane, std::vector<RelayPass> relays) {
    if (relays.empty()) return;
    const RelayPass relay = std::move(relays.front());
    relays.erase(relays.begin());
    Hello hello{Kind::kCall, lane};
    hello.to = peer;
    errand(relay, hello, kCallAnswer,
           [this, relay, inner, peer, lane, relays = std::move(relays)](std::optional<tcp::socket> stream,
                                                                        const std::string& why) {
             if (stream) return join(std::move(*inner), std::move(*stream));
             note(fmt::format("no way to worker {} through a relay: {}", peer, why));
             // It may have vanished without a word: others are asked first from now on.
             if (why == Errand::kSilence) suspect(relay.address);
             call(inner, peer, lane, relays);
           });
  }

  void join(tcp::socket a, tcp::socket b) {
    set_options(a);
    const auto joint = std::make_shared<Joint>(std::move(a), std::move(b), bytes_, nullptr, [] {});
    std::erase_if(joints_, [](const auto& weak) { return weak.expired(); });
    joints_.push_back(joint);
    joint->start();
  }

  void suspect(const std::string& address) {
    for (const auto& relay : relays_)
      if (relay->pass.address == address && relay->socket) return lost(relay);
  }

  void errand(const RelayPass& pass, Hello hello, std::chrono::milliseconds patience, Errand::Done done) {
    hello.run_id = pass.pass.run_id;
    hello.from = pass.pass.peer;
    hello.expires_s = pass.pass.expires_s;
    std::make_shared<Errand>(context_, pass, hello, patience, std::move(done))->start();
  }

  void note(std::string trouble) {
    const std::lock_guard lock(mutex_);
    trouble_ = std::move(trouble);
  }
  void count() {
    const std::lock_guard lock(mutex_);
    relays_count_ = relays_.size();
    registered_ = static_cast<std::uint64_t>(
        std::ranges::count_if(relays_, [](const RelayPtr& relay) { return relay->socket != nullptr; }));
  }

  std::vector<std::optional<tcp::endpoint>> own_;  // control, bulk
  std::atomic<std::uint64_t> bytes_ = 0;
  mutable std::mutex mutex_;  // of what others ask for
  std::map<PeerId, protocol::Endpoints> towards_;
  std::uint64_t registered_ = 0, relays_count_ = 0;
  std::string trouble_;
  asio::io_context context_{1};
  std::vector<RelayPtr> relays_;
  std::size_t answers_ = 0;  // under way
  std::list<std::weak_ptr<Joint>> joints_;
  std::thread thread_;
};

Tunnel::Tunnel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tunnel::~Tunnel() = default;

Result<std::unique_ptr<Tunnel>> Tunnel::open(const protocol::Endpoints& own) {
  auto impl = std::make_unique<Impl>(own);
  if (!impl->has_sockets()) return fail("'{}', '{}' are no addresses to join calls to", own.control, own.bulk);
  return std::unique_ptr<Tunnel>(new Tunnel(std::move(impl)));
}

void Tunnel::use(std::vector<RelayPass> relays) { impl_->use(std::move(relays)); }
Result<protocol::Endpoints> Tunnel::towards(PeerId peer) { return impl_->towards(peer); }
void Tunnel::again() { impl_->again(); }
Tunnel::Figures Tunnel::figures() const { return impl_->figures(); }

}  // namespace isthmus::relay
