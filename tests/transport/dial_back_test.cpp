#include "transport/dial_back.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <zmq.hpp>

#include "transport/zmq_transport.h"

namespace isthmus::transport {
namespace {

using Clock = std::chrono::steady_clock;

class DialBackTest : public ::testing::Test {
 protected:
  std::unique_ptr<ZmqTransport> worker() {
    ZmqTransport::Options options;
    options.self = PeerId(1);
    options.keys = worker_;
    options.roster.add(kCoordinator, coordinator_.public_key);
    return std::move(*ZmqTransport::open(std::move(options)));
  }
  DialBack::Result result(DialBack& dial_back, ZmqTransport* sockets) {
    while (true) {
      const Time now = Clock::now().time_since_epoch();
      if (sockets) sockets->poll(now);
      if (auto results = dial_back.poll(now); !results.empty()) return results.front();
    }
  }
  DialBack::Options options() const { return {coordinator_, std::chrono::milliseconds(500)}; }
  const KeyPair coordinator_ = new_key_pair(), worker_ = new_key_pair();
};

TEST_F(DialBackTest, FindsTheWorkerAndDoesNotStayConnected) {
  auto sockets = worker();
  DialBack::Options patient = options();
  patient.patience = seconds(60);
  DialBack dial_back(patient);
  EXPECT_EQ(dial_back.next_due({}), kNever);
  dial_back.begin(PeerId(1), sockets->endpoints(), worker_.public_key);
  EXPECT_NE(dial_back.next_due({}), kNever);
  const auto found = result(dial_back, sockets.get());
  EXPECT_TRUE(found.answered);
  EXPECT_EQ(found.peer, PeerId(1));
  EXPECT_EQ(found.endpoints, sockets->endpoints());
  EXPECT_EQ(dial_back.next_due({}), kNever);
}

TEST_F(DialBackTest, IsNotTakenInByAnotherMachineAtThatAddress) {
  auto sockets = worker();
  DialBack dial_back(options());
  dial_back.begin(PeerId(1), sockets->endpoints(), new_key_pair().public_key);
  EXPECT_FALSE(result(dial_back, sockets.get()).answered);
}

TEST_F(DialBackTest, WantsBothSocketsAndAnAddress) {
  auto sockets = worker();
  DialBack dial_back(options());
  auto half = sockets->endpoints();
  half.bulk = "tcp://127.0.0.1:1";
  dial_back.begin(PeerId(1), half, worker_.public_key);
  EXPECT_FALSE(result(dial_back, sockets.get()).answered);
  dial_back.begin(PeerId(1), {"tcp://nonsense", "tcp://"}, worker_.public_key);
  EXPECT_FALSE(result(dial_back, nullptr).answered);
}

}  // namespace
}  // namespace isthmus::transport
