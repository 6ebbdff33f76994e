#include "relay/relay_server.h"

#include <sodium.h>

#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <deque>
#include <map>
#include <thread>
#include <unordered_map>
#include <utility>

#include "process/clock.h"
#include "relay/joint.h"
#include "transport/address.h"

namespace isthmus::relay {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Failure = boost::system::error_code;
using Stream = Switchboard::Stream;

// A stranger has so long to show a pass, and whoever has registered to send a sign of life.
constexpr auto kShow = std::chrono::seconds(10), kForgotten = std::chrono::seconds(60);
constexpr auto kTurn = std::chrono::seconds(1);
constexpr std::size_t kUnsentMost = 4096;

// A stream before it is joined. Whatever is under way on it keeps it alive.
struct Visitor {
  explicit Visitor(tcp::socket s) : socket(std::move(s)), deadline(socket.get_executor()) {}

  tcp::socket socket;
  asio::steady_timer deadline;
  std::string address;
  bool stranger = true;
  Nonce nonce{};
  std::array<std::uint8_t, kHelloBytes> hello{};
  std::array<std::uint8_t, 256> signs{};
  std::deque<Bytes> unsent;
  bool registered = false;
  bool closing = false;  // once what is unsent has left
};
using VisitorPtr = std::shared_ptr<Visitor>;

}  // namespace

class RelayServer::Impl {
 public:
  explicit Impl(Options options)
      : options_(std::move(options)), switchboard_(options_.limits), acceptor_(context_), ticker_(context_) {}

  ~Impl() {
    asio::post(context_, [this] { context_.stop(); });
    if (thread_.joinable()) thread_.join();
    // Their ends would be told to what is gone by then.
    ended_ = true;
    for (auto& [stream, joint] : joints_)
      if (const auto alive = joint.lock()) alive->close();
  }

  Status listen() {
    Failure failure;
    const auto address = asio::ip::make_address(transport::plain_address(options_.host), failure);
    if (failure) return fail("'{}' is no address; expected one such as 192.168.1.20", options_.host);
    const tcp::endpoint endpoint(address, options_.port);
    acceptor_.open(endpoint.protocol(), failure);
    if (!failure) acceptor_.set_option(tcp::acceptor::reuse_address(true), failure);
    if (!failure) acceptor_.bind(endpoint, failure);
    if (!failure) acceptor_.listen(asio::socket_base::max_listen_connections, failure);
    if (failure)
      return fail(
          "cannot listen on {}:{} for a relay's streams: {}; choose another port, or an address of this machine",
          options_.host, options_.port, failure.message());
    port_ = acceptor_.local_endpoint().port();
    accept();
    tick();
    thread_ = std::thread([this] { context_.run(); });
    return {};
  }

  std::uint16_t port() const { return port_; }
  Figures figures() const { return {registered_, streams_, joined_, bytes_, refused_}; }

 private:
  void accept() {
    acceptor_.async_accept([this](Failure failure, tcp::socket socket) {
      if (failure == asio::error::operation_aborted) return;
      if (!failure) welcome(std::move(socket));
      if (failure) {  // out of descriptors: those that are there go on
        retry_.expires_after(kTurn);
        retry_.async_wait([this](Failure stopped) {
          if (!stopped) accept();
        });
        return;
      }
      accept();
    });
  }

  void welcome(tcp::socket socket) {
    Failure failure;
    const auto from = socket.remote_endpoint(failure);
    if (failure) return;
    // One of a home's addresses is as good as another.
    const std::string address = transport::network_of(from.address().to_string());
    if (strangers_ >= options_.strangers || strangers_of_[address] >= options_.strangers_per_address) {
      if (strangers_of_[address] == 0) strangers_of_.erase(address);
      ++refused_;
      return;
    }
    set_options(socket);
    const Stream stream = ++last_stream_;
    const auto visitor = std::make_shared<Visitor>(std::move(socket));
    visitors_[stream] = visitor;
    visitor->address = address;
    ++strangers_;
    ++strangers_of_[address];
    randombytes_buf(visitor->nonce.data(), visitor->nonce.size());
    const auto seen = from.address().is_v4() ? asio::ip::make_address_v6(asio::ip::v4_mapped, from.address().to_v4())
                                             : from.address().to_v6();
    send(stream, encode_greeting({visitor->nonce, seen.to_bytes(), from.port()}));
    expire(stream, *visitor, kShow);
    asio::async_read(visitor->socket, asio::buffer(visitor->hello),
                     [this, stream, visitor](Failure broken, std::size_t) {
                       if (!visitors_.contains(stream)) return;
                       if (broken) return drop(stream);
                       read_hello(stream, visitor);
                     });
  }

  void read_hello(Stream stream, const VisitorPtr& visitor) {
    const Checked checked = check_hello(visitor->hello, options_.key, visitor->nonce, process::seconds_since_1970());
    if (checked.verdict != Verdict::kWelcome) return say(stream, checked.verdict);
    no_stranger(*visitor);
    visitor->registered = checked.hello.kind == Kind::kRegister;
    carry_out(switchboard_.hello(stream, checked.hello, process::monotonic_now()));
    if (visitors_.contains(stream) && !visitor->closing) listen_to(stream, visitor);
  }

  // Whoever has registered shows now and then that it is there; a caller waits and says nothing.
  void listen_to(Stream stream, const VisitorPtr& visitor) {
    expire(stream, *visitor, kForgotten);
    visitor->socket.async_read_some(asio::buffer(visitor->signs), [this, stream, visitor](Failure broken, std::size_t) {
      if (broken == asio::error::operation_aborted || !visitors_.contains(stream)) return;
      if (broken || !visitor->registered) return drop(stream);
      // One answer to however many signs; one that is still to leave is answer enough.
      if (visitor->unsent.empty()) send(stream, encode_ring({}));
      if (visitors_.contains(stream)) listen_to(stream, visitor);
    });
  }

  void carry_out(const Switchboard::Effects& effects) {
    for (const auto& effect : effects) std::visit([this](const auto& e) { carry_out(e); }, effect);
    count();
  }
  void carry_out(const Switchboard::Say& effect) { say(effect.stream, effect.verdict); }
  void carry_out(const Switchboard::Tell& effect) { send(effect.stream, encode_ring(effect.ring)); }
  void carry_out(const Switchboard::HangUp& effect) { drop(effect.stream); }
  void carry_out(const Switchboard::Join& effect) {
    const auto caller = visitors_.find(effect.caller), callee = visitors_.find(effect.callee);
    if (caller == visitors_.end() || callee == visitors_.end() || !welcomed(*caller->second) ||
        !welcomed(*callee->second)) {
      drop(effect.caller);
      drop(effect.callee);
      return;
    }
    auto& allowance = allowances_[effect.account];
    auto shared = allowance.lock();
    if (!shared) {
      shared = std::make_shared<Allowance>(Allowance{options_.bytes_per_second, options_.bytes_per_second, {}});
      allowance = shared;
    }
    const auto joint = std::make_shared<Joint>(std::move(caller->second->socket), std::move(callee->second->socket),
                                               bytes_, shared, [this, a = effect.caller, b = effect.callee] {
                                                 if (ended_) return;
                                                 switchboard_.closed(a);
                                                 switchboard_.closed(b);
                                                 joints_.erase(a);
                                                 count();
                                               });
    for (const auto& visitor : {caller->second, callee->second}) visitor->deadline.cancel();
    visitors_.erase(effect.caller);
    visitors_.erase(effect.callee);
    joints_[effect.caller] = joint;
    ++joined_;
    joint->start();
  }

  // Nothing is under way to it, and one byte has room: this thread waits for nobody.
  static bool welcomed(Visitor& visitor) {
    Failure failure;
    visitor.socket.cancel(failure);
    if (!visitor.unsent.empty()) return false;
    const std::array<std::uint8_t, 1> welcome = {static_cast<std::uint8_t>(Verdict::kWelcome)};
    visitor.socket.non_blocking(true, failure);
    return visitor.socket.write_some(asio::buffer(welcome), failure) == 1 && !failure;
  }

  void say(Stream stream, Verdict verdict) {
    const auto at = visitors_.find(stream);
    if (at == visitors_.end()) return;
    if (verdict != Verdict::kWelcome) {
      ++refused_;
      at->second->closing = true;
    }
    send(stream, {static_cast<std::uint8_t>(verdict)});
  }

  void send(Stream stream, Bytes bytes) {
    const auto at = visitors_.find(stream);
    if (at == visitors_.end()) return;
    const VisitorPtr visitor = at->second;
    visitor->unsent.push_back(std::move(bytes));
    if (visitor->unsent.size() > kUnsentMost) return drop(stream);
    if (visitor->unsent.size() == 1) write(stream, visitor);
  }
  void write(Stream stream, const VisitorPtr& visitor) {
    asio::async_write(visitor->socket, asio::buffer(visitor->unsent.front()),
                      [this, stream, visitor](Failure broken, std::size_t) {
                        if (!visitors_.contains(stream)) return;
                        if (broken) return drop(stream);
                        visitor->unsent.pop_front();
                        if (!visitor->unsent.empty())
                          write(stream, visitor);
                        else if (visitor->closing)
                          drop(stream);
                      });
  }

  template <class Span>
  void expire(Stream stream, Visitor& visitor, Span span) {
    visitor.deadline.expires_after(span);
    visitor.deadline.async_wait([this, stream](Failure stopped) {
      if (!stopped) drop(stream);
    });
  }

  void no_stranger(Visitor& visitor) {
    if (!std::exchange(visitor.stranger, false)) return;
    --strangers_;
    if (--strangers_of_[visitor.address] == 0) strangers_of_.erase(visitor.address);
  }

  void drop(Stream stream) {
    const auto at = visitors_.find(stream);
    if (at == visitors_.end()) return;
    const VisitorPtr visitor = at->second;
    no_stranger(*visitor);
    Failure ignored;
    visitor->socket.close(ignored);
    visitor->deadline.cancel();
    visitors_.erase(at);
    switchboard_.closed(stream);
    count();
  }

  void tick() {
    ticker_.expires_after(kTurn);
    ticker_.async_wait([this](Failure stopped) {
      if (stopped) return;
      carry_out(switchboard_.tick(process::monotonic_now()));
      std::erase_if(allowances_, [](const auto& entry) { return entry.second.expired(); });
      tick();
    });
  }

  void count() {
    registered_ = switchboard_.registered();
    streams_ = switchboard_.streams();
  }

  const Options options_;
  asio::io_context context_{1};
  Switchboard switchboard_;
  tcp::acceptor acceptor_;
  asio::steady_timer ticker_;
  asio::steady_timer retry_{context_};
  std::uint16_t port_ = 0;
  Stream last_stream_ = 0;
  std::unordered_map<Stream, VisitorPtr> visitors_;
  std::unordered_map<Stream, std::weak_ptr<Joint>> joints_;
  std::map<Switchboard::Peer, std::weak_ptr<Allowance>> allowances_;
  std::size_t strangers_ = 0;
  std::unordered_map<std::string, std::size_t> strangers_of_;
  std::atomic<std::uint64_t> registered_ = 0, streams_ = 0, joined_ = 0, bytes_ = 0, refused_ = 0;
  bool ended_ = false;
  std::thread thread_;
};

RelayServer::RelayServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RelayServer::~RelayServer() = default;

Result<std::unique_ptr<RelayServer>> RelayServer::open(Options options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  if (auto listening = impl->listen(); !listening) return tl::unexpected(listening.error());
  return std::unique_ptr<RelayServer>(new RelayServer(std::move(impl)));
}

std::uint16_t RelayServer::port() const { return impl_->port(); }
RelayServer::Figures RelayServer::figures() const { return impl_->figures(); }

}  // namespace isthmus::relay
