// Two real transports that cannot dial each other, their tunnels, and relays between them.
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "relay/hello.h"
#include "relay/reflection.h"
#include "relay/relay_server.h"
#include "relay/tunnel.h"
#include "transport/zmq_transport.h"

namespace isthmus::relay {
namespace {

using transport::Frame;
using transport::KeyPair;
using transport::ZmqTransport;
using Clock = std::chrono::steady_clock;
using boost::asio::ip::tcp;

constexpr std::uint64_t kRunId = 0xabcdef;

std::uint64_t in_an_hour() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count() +
      3600);
}

// One worker.
struct Home {
  Home(std::uint32_t number, const KeyPair& keys, std::uint32_t other, const KeyPair& others) : peer(number) {
    ZmqTransport::Options options;
    options.self = peer;
    options.keys = keys;
    options.roster.add(PeerId(other), others.public_key);
    sockets = std::move(*ZmqTransport::open(std::move(options)));
    tunnel = std::move(*Tunnel::open(sockets->endpoints()));
  }
  void turn() {
    sockets->wait(std::chrono::milliseconds(5), {});
    for (auto& event : sockets->poll(Clock::now().time_since_epoch())) {
      if (auto* received = std::get_if<transport::FrameReceived>(&event)) frames.push_back(std::move(received->frame));
      if (std::holds_alternative<transport::PeerConnected>(event)) up = true;
      if (std::holds_alternative<transport::PeerDisconnected>(event)) up = false;
    }
  }
  PeerId peer;
  std::unique_ptr<ZmqTransport> sockets;
  std::unique_ptr<Tunnel> tunnel;
  std::vector<Frame> frames;
  bool up = false;
};

// Hands one connection after the other on to a relay, and keeps what it saw.
class Wiretap {
 public:
  explicit Wiretap(std::uint16_t relay)
      : relay_(relay), acceptor_(context_, {boost::asio::ip::address_v4::loopback(), 0}) {
    accept();
    thread_ = std::thread([this] { context_.run(); });
  }
  ~Wiretap() {
    context_.stop();
    thread_.join();
  }
  std::string address() const { return fmt::format("127.0.0.1:{}", acceptor_.local_endpoint().port()); }
  // Once nothing goes through it any more.
  const std::string& seen() const { return seen_; }

 private:
  void accept() {
    acceptor_.async_accept([this](boost::system::error_code failure, tcp::socket inner) {
      if (failure) return;
      auto a = std::make_shared<tcp::socket>(std::move(inner)), b = std::make_shared<tcp::socket>(context_);
      b->connect({boost::asio::ip::address_v4::loopback(), relay_});
      pass(a, b, std::make_shared<std::array<char, 4096>>());
      pass(b, a, std::make_shared<std::array<char, 4096>>());
      accept();
    });
  }
  void pass(std::shared_ptr<tcp::socket> from, std::shared_ptr<tcp::socket> to,
            std::shared_ptr<std::array<char, 4096>> buffer) {
    from->async_read_some(boost::asio::buffer(*buffer), [=, this](boost::system::error_code failure, std::size_t n) {
      boost::system::error_code ignored;
      if (failure) {
        to->close(ignored);
        return;
      }
      seen_.append(buffer->data(), n);
      boost::asio::write(*to, boost::asio::buffer(*buffer, n), ignored);
      pass(from, to, buffer);
    });
  }
  const std::uint16_t relay_;
  boost::asio::io_context context_;
  tcp::acceptor acceptor_;
  std::string seen_;
  std::thread thread_;
};

class RelayTest : public ::testing::Test {
 protected:
  std::unique_ptr<RelayServer> relay(const RelayServer::Options& wanted = {}) {
    RelayServer::Options options = wanted;
    options.key = key_;
    auto opened = RelayServer::open(options);
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().message);
    return std::move(*opened);
  }
  RelayPass pass(const std::string& address, PeerId peer) const {
    return {address, make_pass(key_, kRunId, peer, in_an_hour())};
  }
  static std::string address(const RelayServer& relay) { return fmt::format("127.0.0.1:{}", relay.port()); }
  void use(const std::vector<std::string>& addresses) {
    for (Home* home : {&a_, &b_}) {
      std::vector<RelayPass> passes;
      for (const auto& address : addresses) passes.push_back(pass(address, home->peer));
      home->tunnel->use(std::move(passes));
    }
  }
  void dial() { b_.sockets->connect(a_.peer, *b_.tunnel->towards(a_.peer), keys_a_.public_key); }
  bool until(const std::function<bool()>& done) {
    const auto give_up = Clock::now() + std::chrono::seconds(60);
    while (!done() && Clock::now() < give_up) {
      a_.turn();
      b_.turn();
    }
    return done();
  }
  Frame frame(PeerId to, const std::string& text) {
    Frame f;
    f.peer = to;
    f.priority = protocol::Priority::kActivation;
    f.head = Bytes(40, 1);
    f.payload = share(Bytes(text.begin(), text.end()));
    return f;
  }

  const Key key_ = new_key();
  const KeyPair keys_a_ = transport::new_key_pair(), keys_b_ = transport::new_key_pair();
  Home a_{1, keys_a_, 2, keys_b_}, b_{2, keys_b_, 1, keys_a_};
};

TEST_F(RelayTest, JoinsWhomNobodyCanDialAndSeesNothingOfIt) {
  const auto server = relay();
  std::string secret;
  for (int i = 0; secret.size() < 200'000; ++i) secret += fmt::format("coefficient {};", i);
  {
    Wiretap tap(server->port());
    use({tap.address()});
    dial();
    ASSERT_TRUE(until([&] { return a_.up && b_.up; }));
    for (std::size_t at = 0; at < secret.size(); at += 50'000) {
      b_.sockets->send(frame(a_.peer, secret.substr(at, 50'000)));
      a_.sockets->send(frame(b_.peer, secret.substr(at, 50'000)));
    }
    const std::size_t frames = (secret.size() + 49'999) / 50'000;
    ASSERT_TRUE(until([&] { return a_.frames.size() == frames && b_.frames.size() == frames; }));
    a_.sockets.reset();
    b_.sockets.reset();
    a_.tunnel.reset();
    b_.tunnel.reset();
    for (const Home* home : {&a_, &b_}) {
      std::string arrived;
      for (const auto& f : home->frames) arrived.append(f.payload->begin(), f.payload->end());
      EXPECT_EQ(arrived, secret);
    }
    EXPECT_GT(server->figures().bytes, 2 * secret.size());
    EXPECT_GT(tap.seen().size(), 2 * secret.size());
    EXPECT_EQ(tap.seen().find("coefficient"), std::string::npos);
    EXPECT_EQ(tap.seen().find(std::string(keys_a_.secret_key.begin(), keys_a_.secret_key.end())), std::string::npos);
    // What would let somebody pass crosses as a proof only.
    const Pass mine = pass("", b_.peer).pass;
    EXPECT_EQ(tap.seen().find(std::string(mine.secret.begin(), mine.secret.end())), std::string::npos);
  }
}

TEST_F(RelayTest, AnotherTakesOverFromOneThatDies) {
  auto first = relay();
  const auto second = relay();
  use({address(*first), address(*second)});
  ASSERT_TRUE(until([&] { return first->figures().registered == 2 && b_.tunnel->figures().registered == 2; }));
  dial();
  ASSERT_TRUE(until([&] { return a_.up && b_.up; }));
  b_.sockets->send(frame(a_.peer, "through the first"));
  ASSERT_TRUE(until([&] { return a_.frames.size() == 1; }));
  EXPECT_EQ(second->figures().joined, 0u);
  first.reset();
  ASSERT_TRUE(until([&] { return !b_.up; }));
  ASSERT_TRUE(until([&] { return a_.up && b_.up; }));
  b_.sockets->send(frame(a_.peer, "through the second"));
  ASSERT_TRUE(until([&] { return a_.frames.size() == 2; }));
  EXPECT_GE(second->figures().joined, 2u);
  EXPECT_EQ(b_.tunnel->figures().registered, 1u);
}

TEST_F(RelayTest, ComesBackByItselfAtTheSameAddress) {
  auto server = relay();
  RelayServer::Options same;
  same.port = server->port();
  use({address(*server)});
  dial();
  ASSERT_TRUE(until([&] { return a_.up && b_.up; }));
  server.reset();
  ASSERT_TRUE(until([&] { return !a_.up && !b_.up; }));
  server = relay(same);
  ASSERT_TRUE(until([&] { return a_.up && b_.up; }));
}

TEST_F(RelayTest, RefusesWhoHasNoPassOfItsOwn) {
  const auto server = relay();
  RelayPass forged = pass(address(*server), a_.peer);
  forged.pass = make_pass(new_key(), kRunId, a_.peer, in_an_hour());
  a_.tunnel->use({forged});
  ASSERT_TRUE(until([&] { return !a_.tunnel->figures().trouble.empty(); }));
  EXPECT_EQ(a_.tunnel->figures().trouble,
            fmt::format("relay {}: it does not take this run's passes", address(*server)));
  EXPECT_EQ(server->figures().registered, 0u);
  RelayPass old{address(*server), make_pass(key_, kRunId, a_.peer, 1)};
  a_.tunnel->use({});
  a_.tunnel->use({old});
  ASSERT_TRUE(until([&] { return a_.tunnel->figures().trouble.find("expired") != std::string::npos; }));
}

TEST_F(RelayTest, TakesAFewStrangersOfAnAddressAndForgetsThem) {
  RelayServer::Options options;
  options.strangers_per_address = 3;
  const auto server = relay(options);
  boost::asio::io_context context;
  std::vector<tcp::socket> strangers;
  for (int i = 0; i < 10; ++i) {
    strangers.emplace_back(context);
    strangers.back().connect({boost::asio::ip::address_v4::loopback(), server->port()});
  }
  ASSERT_TRUE(until([&] { return server->figures().refused == 7; }));
  strangers.clear();
  use({address(*server)});
  EXPECT_TRUE(until([&] { return server->figures().registered == 2; }));
}

TEST_F(RelayTest, HangsUpOnWhoTalksNonsense) {
  const auto server = relay();
  boost::asio::io_context context;
  tcp::socket stranger(context);
  stranger.connect({boost::asio::ip::address_v4::loopback(), server->port()});
  boost::system::error_code failure;
  boost::asio::write(stranger, boost::asio::buffer(std::string(10'000, 'x')), failure);
  std::array<char, 64> answer{};
  const std::size_t count = boost::asio::read(stranger, boost::asio::buffer(answer), failure);
  EXPECT_TRUE(failure) << "it hung up";
  EXPECT_LE(count, kGreetingBytes + 1);
}

TEST_F(RelayTest, TellsFromWhereItIsCalled) {
  const auto server = relay();
  EXPECT_EQ(reflected_address(address(*server), seconds(30)), "127.0.0.1");
  const auto nobody = reflected_address("127.0.0.1:1", seconds(30));
  ASSERT_FALSE(nobody);
  EXPECT_NE(nobody.error().message.find("nobody answers at 127.0.0.1:1"), std::string::npos);
  EXPECT_FALSE(reflected_address("nonsense", seconds(30)));
}

TEST_F(RelayTest, SaysWhichAddressIsTaken) {
  const auto server = relay();
  RelayServer::Options same;
  same.port = server->port();
  const auto second = RelayServer::open(same);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find(address(*server)), std::string::npos) << second.error().message;
}

TEST_F(RelayTest, GivesEachPeerItsShareOfBytes) {
  RelayServer::Options options;
  options.bytes_per_second = 200'000;
  const auto server = relay(options);
  use({address(*server)});
  dial();
  ASSERT_TRUE(until([&] { return a_.up && b_.up; }));
  const auto begun = Clock::now();
  for (int i = 0; i < 10; ++i) b_.sockets->send(frame(a_.peer, std::string(60'000, 'x')));
  ASSERT_TRUE(until([&] { return a_.frames.size() == 10; }));
  // A second's worth is there from the beginning, and a buffer may be under way.
  const double least = (10 * 60'000 - 200'000 - 4 * 65'536) / 200'000.0;
  EXPECT_GE(std::chrono::duration<double>(Clock::now() - begun).count(), least);
}

}  // namespace
}  // namespace isthmus::relay
