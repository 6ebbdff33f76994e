#include "transport/zmq_transport.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <zmq.hpp>

#include "base/replicas_max.h"
#include "transport/keys.h"

namespace isthmus::transport {
namespace {

using Clock = std::chrono::steady_clock;

Time now() { return Clock::now().time_since_epoch(); }

// One end on loopback and what it has heard.
struct End {
  std::unique_ptr<ZmqTransport> transport;
  std::vector<Frame> frames;
  int connected = 0;
  int disconnected = 0;

  // At `time` by its own clock.
  void turn(Time time = now()) {
    transport->wait(std::chrono::milliseconds(5), {});
    for (auto& event : transport->poll(time)) {
      if (auto* received = std::get_if<FrameReceived>(&event)) frames.push_back(std::move(received->frame));
      if (std::holds_alternative<PeerConnected>(event)) ++connected;
      if (std::holds_alternative<PeerDisconnected>(event)) ++disconnected;
    }
  }
};

class ZmqTransportTest : public ::testing::Test {
 protected:
  End open(std::uint32_t self, const KeyPair& keys, const std::vector<std::pair<std::uint32_t, KeyPair>>& known) {
    ZmqTransport::Options options;
    options.self = PeerId(self);
    options.keys = keys;
    for (const auto& [peer, pair] : known) options.roster.add(PeerId(peer), pair.public_key);
    return {std::move(*ZmqTransport::open(std::move(options))), {}, 0, 0};
  }
  // Turns the ends until `done`, or for half a minute: then the test fails by what it expects.
  static void until(std::vector<End*> ends, const std::function<bool()>& done) {
    const auto give_up = Clock::now() + std::chrono::seconds(30);
    while (!done() && Clock::now() < give_up)
      for (End* end : ends) end->turn();
  }
  static Frame frame(std::uint32_t to, protocol::Priority priority, std::size_t bytes, std::uint8_t mark) {
    Frame f;
    f.peer = PeerId(to);
    f.priority = priority;
    f.head = Bytes(40, mark);
    if (bytes > 0) f.payload = share(Bytes(bytes, mark));
    return f;
  }

  const KeyPair server_keys_ = new_key_pair(), client_keys_ = new_key_pair();
};

TEST_F(ZmqTransportTest, CarriesFramesBothWaysAndKnowsTheirSenders) {
  End server = open(1, server_keys_, {{2, client_keys_}}), client = open(2, client_keys_, {{1, server_keys_}});
  client.transport->connect(PeerId(1), server.transport->endpoints(), server_keys_.public_key);
  for (std::uint8_t i = 0; i < 20; ++i) client.transport->send(frame(1, protocol::Priority::kActivation, 60'000, i));
  client.transport->send(frame(1, protocol::Priority::kControl, 0, 99));
  until({&server, &client},
        [&] { return server.frames.size() == 21 && server.connected == 1 && client.connected == 1; });
  ASSERT_EQ(server.frames.size(), 21u);
  std::uint8_t next = 0;
  for (const auto& f : server.frames) {
    EXPECT_EQ(f.peer, PeerId(2));
    if (f.priority == protocol::Priority::kControl) continue;
    EXPECT_EQ(f.head, Bytes(40, next));
    EXPECT_EQ(f.payload, share(Bytes(60'000, next)));
    ++next;
  }
  server.transport->send(frame(2, protocol::Priority::kGradient, 1000, 7));
  until({&server, &client}, [&] { return client.frames.size() == 1; });
  ASSERT_EQ(client.frames.size(), 1u);
  EXPECT_EQ(client.frames[0].peer, PeerId(1));
  EXPECT_EQ(server.transport->queued_bytes(), 0u);
}

TEST_F(ZmqTransportTest, RefusesAKeyThatIsNotInTheRosterUntilItIs) {
  End server = open(1, server_keys_, {}), client = open(2, client_keys_, {{1, server_keys_}});
  client.transport->connect(PeerId(1), server.transport->endpoints(), server_keys_.public_key);
  client.transport->send(frame(1, protocol::Priority::kControl, 0, 1));
  until({&server, &client}, [&] { return server.transport->refused().keys >= 2; });
  EXPECT_GE(server.transport->refused().keys, 2u);
  EXPECT_TRUE(server.frames.empty());
  EXPECT_EQ(server.connected, 0);
  server.transport->allow(PeerId(2), client_keys_.public_key);
  // Frames are best effort while connections come and go; the protocol repeats them, and so does this.
  until({&server, &client}, [&] {
    client.transport->send(frame(1, protocol::Priority::kControl, 0, 1));
    return !server.frames.empty();
  });
  EXPECT_FALSE(server.frames.empty());
}

// Who is called may hear a moment later of the one who calls.
TEST_F(ZmqTransportTest, CallsSoonAgainWhenItWasRefused) {
  End server = open(1, server_keys_, {}), client = open(2, client_keys_, {{1, server_keys_}});
  const Time begin = now();
  client.transport->connect(PeerId(1), server.transport->endpoints(), server_keys_.public_key);
  const auto until_refused = [&](std::uint64_t times, Time time) {
    until({&server}, [&] {
      client.turn(time);
      return client.transport->failed_handshakes() >= times;
    });
    EXPECT_EQ(client.transport->failed_handshakes(), times);
  };
  until_refused(2, begin);  // both lanes
  EXPECT_EQ(client.transport->next_due(), begin + std::chrono::milliseconds(100));
  until_refused(4, begin + std::chrono::milliseconds(100));
  EXPECT_EQ(client.transport->next_due(), begin + std::chrono::milliseconds(300));
  until_refused(6, begin + std::chrono::milliseconds(300));
}

TEST_F(ZmqTransportTest, CountsWhoComesWithAnotherMechanismOrWithoutOne) {
  End server = open(1, server_keys_, {{2, client_keys_}});
  zmq::context_t context;
  zmq::socket_t open_dealer(context, zmq::socket_type::dealer), password_dealer(context, zmq::socket_type::dealer);
  password_dealer.set(zmq::sockopt::plain_username, "admin");
  password_dealer.set(zmq::sockopt::plain_password, "admin");
  for (zmq::socket_t* dealer : {&open_dealer, &password_dealer}) {
    dealer->set(zmq::sockopt::linger, 0);
    const std::uint64_t before = server.transport->refused().handshakes;
    dealer->connect(server.transport->endpoints().control);
    dealer->send(zmq::message_t(), zmq::send_flags::none);
    until({&server}, [&] { return server.transport->refused().handshakes > before; });
    EXPECT_GT(server.transport->refused().handshakes, before);
    dealer->close();
  }
  EXPECT_EQ(server.transport->refused().keys, 0u);
  EXPECT_TRUE(server.frames.empty());
  EXPECT_EQ(server.connected, 0);
}

TEST_F(ZmqTransportTest, DoesNotTalkToAServerWithAnotherKey) {
  End server = open(1, server_keys_, {{2, client_keys_}}), client = open(2, client_keys_, {});
  client.transport->connect(PeerId(1), server.transport->endpoints(), new_key_pair().public_key);
  client.transport->send(frame(1, protocol::Priority::kControl, 0, 1));
  for (int i = 0; i < 100; ++i) {
    server.turn();
    client.turn();
  }
  EXPECT_TRUE(server.frames.empty());
  EXPECT_EQ(client.connected, 0);
}

TEST_F(ZmqTransportTest, SeesAKilledProcessAndItsSuccessor) {
  // Both processes are made while this one has no other thread: a lock that another thread holds during a fork is never
  // given back in the child. Each waits in its pipe for where to connect.
  struct Life {
    pid_t pid = 0;
    int begin = -1;
  };
  std::vector<Life> lives;
  for (int i = 0; i < 2; ++i) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t pid = ::fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      ::close(ends[1]);
      for (const Life& earlier : lives) ::close(earlier.begin);
      std::ifstream lines("/dev/fd/" + std::to_string(ends[0]));
      protocol::Endpoints server;
      if (!std::getline(lines, server.control) || !std::getline(lines, server.bulk)) ::_exit(1);
      End client = open(2, client_keys_, {{1, server_keys_}});
      client.transport->connect(PeerId(1), server, server_keys_.public_key);
      client.transport->send(frame(1, protocol::Priority::kControl, 0, 1));
      while (true) client.turn();
    }
    ::close(ends[0]);
    lives.push_back({pid, ends[1]});
  }

  End server = open(1, server_keys_, {{2, client_keys_}});
  const std::string lines = server.transport->endpoints().control + "\n" + server.transport->endpoints().bulk + "\n";
  int lived = 0;
  for (const Life& life : lives) {
    ++lived;
    ASSERT_EQ(::write(life.begin, lines.data(), lines.size()), static_cast<ssize_t>(lines.size()));
    until({&server}, [&] { return server.connected == lived && !server.frames.empty(); });
    EXPECT_EQ(server.connected, lived);
    EXPECT_EQ(server.disconnected, lived - 1);
    server.frames.clear();
    ::kill(life.pid, SIGKILL);
    ::waitpid(life.pid, nullptr, 0);
    ::close(life.begin);
    until({&server}, [&] { return server.disconnected == lived; });
    EXPECT_EQ(server.disconnected, lived);
  }
}

// A worker that takes another place is called where it called before, and the other way round.
TEST_F(ZmqTransportTest, ChangesWhoCallsWhenAPeerBeginsAgainElsewhere) {
  End one = open(1, server_keys_, {{2, client_keys_}});
  {
    End two = open(2, client_keys_, {{1, server_keys_}});
    one.transport->connect(PeerId(2), two.transport->endpoints(), client_keys_.public_key);
    until({&one, &two}, [&] { return one.connected == 1 && two.connected == 1; });
    ASSERT_EQ(one.connected, 1);
  }
  End two = open(2, client_keys_, {{1, server_keys_}});
  two.transport->connect(PeerId(1), one.transport->endpoints(), server_keys_.public_key);
  const auto talk = [&](End& other) {
    one.frames.clear();
    other.frames.clear();
    until({&one, &other}, [&] {
      one.transport->send(frame(2, protocol::Priority::kControl, 0, 1));
      other.transport->send(frame(1, protocol::Priority::kControl, 0, 2));
      return !one.frames.empty() && !other.frames.empty();
    });
    return !one.frames.empty() && !other.frames.empty();
  };
  EXPECT_TRUE(talk(two));
  two.transport.reset();
  End three = open(2, client_keys_, {{1, server_keys_}});
  one.transport->connect(PeerId(2), three.transport->endpoints(), client_keys_.public_key);
  EXPECT_TRUE(talk(three));
}

TEST_F(ZmqTransportTest, SaysWhichPortIsInUse) {
  End first = open(1, server_keys_, {});
  const std::string endpoint = first.transport->endpoints().control;
  ZmqTransport::Options options;
  options.self = PeerId(2);
  options.keys = client_keys_;
  options.port = static_cast<std::uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1)));
  const auto second = ZmqTransport::open(std::move(options));
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("in use"), std::string::npos) << second.error().message;
  EXPECT_NE(second.error().message.find("--port"), std::string::npos);
}

TEST_F(ZmqTransportTest, SaysWhyItCannotHaveAPort) {
  ZmqTransport::Options options;
  options.keys = client_keys_;
  options.port = 65'535;
  const auto last = ZmqTransport::open(options);
  ASSERT_FALSE(last);
  EXPECT_NE(last.error().message.find("65535"), std::string::npos) << last.error().message;
  options.port = 0;
  options.bind_host = "192.0.2.1";
  const auto elsewhere = ZmqTransport::open(options);
  ASSERT_FALSE(elsewhere);
  EXPECT_NE(elsewhere.error().message.find("192.0.2.1"), std::string::npos) << elsewhere.error().message;
  EXPECT_NE(elsewhere.error().message.find("this machine's"), std::string::npos) << elsewhere.error().message;
}

TEST_F(ZmqTransportTest, HearsNothingMoreOfAPeerThatIsShutOut) {
  End server = open(1, server_keys_, {{2, client_keys_}}), client = open(2, client_keys_, {{1, server_keys_}});
  client.transport->connect(PeerId(1), server.transport->endpoints(), server_keys_.public_key);
  until({&server, &client}, [&] { return server.connected == 1 && client.connected == 1; });
  server.transport->shut_out(PeerId(2));
  until({&server, &client}, [&] { return server.disconnected == 1; });
  EXPECT_EQ(server.disconnected, 1);
  for (int i = 0; i < 50; ++i) {
    client.transport->send(frame(1, protocol::Priority::kControl, 0, 1));
    server.turn();
    client.turn();
  }
  EXPECT_TRUE(server.frames.empty());
  EXPECT_EQ(server.connected, 1);
}

class KeyFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_);
    std::filesystem::remove(path_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  const std::string folder_ = ::testing::TempDir() + "/isthmus-keys-" + std::to_string(::getpid());
  const std::string path_ = folder_ + "/peer.key";
};

TEST_F(KeyFileTest, ComesBackAndIsNeverOverwritten) {
  const KeyPair keys = new_key_pair();
  ASSERT_TRUE(write_key_file(path_, keys));
  EXPECT_FALSE(write_key_file(path_, new_key_pair()));
  const auto back = read_key_file(path_);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->public_key, keys.public_key);
  EXPECT_EQ(back->secret_key, keys.secret_key);
}

TEST(KeyPairs, OfAnIdentityAreWhatOthersMakeOfItsPublicHalf) {
  const Identity identity = Identity::fresh();
  const auto seen = curve_key_of(identity.key());
  ASSERT_TRUE(seen);
  EXPECT_EQ(key_pair_of(identity).public_key, *seen);
}

TEST_F(KeyFileTest, IsRefusedWhenOthersCanReadItOrItIsDamaged) {
  ASSERT_TRUE(write_key_file(path_, new_key_pair()));
  std::filesystem::permissions(path_, std::filesystem::perms(0644));
  EXPECT_FALSE(read_key_file(path_));
  std::filesystem::permissions(path_, std::filesystem::perms(0600));
  std::ifstream in(path_);
  std::string text((std::istreambuf_iterator<char>(in)), {});
  for (const std::string& damaged : {text.substr(0, 50), std::string("secret x\npublic y\n"), std::string(),
                                     text.replace(10, 1, text[10] == 'a' ? "b" : "a")}) {
    std::ofstream(path_) << damaged;
    EXPECT_FALSE(read_key_file(path_));
  }
}

// A worker at the end of a pipeline dials its own stage and two before it.
TEST_F(ZmqTransportTest, DialsAsManyPeersAsTheLargestStagesHave) {
  End worker = open(1, server_keys_, {});
  for (std::uint32_t peer = 2; peer < 3 * kReplicasMax + 1; ++peer)
    worker.transport->connect(PeerId(peer), {"tcp://127.0.0.1:9", "tcp://127.0.0.1:9"}, client_keys_.public_key);
  EXPECT_EQ(worker.connected, 0);
}

}  // namespace
}  // namespace isthmus::transport
