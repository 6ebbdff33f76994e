// Who is there, for all that can be seen from the coordinator.
#include "scheduler/coordinator/liveness.h"

#include <gtest/gtest.h>

namespace isthmus::coordinator {
namespace {

class LivenessTest : public ::testing::Test {
 protected:
  LivenessTest() {
    for (std::uint32_t r = 0; r < 4; ++r)
      live_.push_back({PeerId(r + 1), SessionId(100 + r), StageId(0), ReplicaId(r), {}, {}});
    turn(0);
    for (const auto& member : live_) liveness_.connected(member.peer);
  }
  void turn(double after) {
    now_ += seconds(after);
    liveness_.turn(now_);
  }
  // Turns often, and hears these peers.
  void pass(double time, std::initializer_list<std::uint32_t> heard) {
    for (double passed = 0; passed < time; passed += .1) {
      turn(.1);
      for (const auto peer : heard) liveness_.heard(PeerId(peer));
    }
  }

  Liveness liveness_{{}};
  std::vector<protocol::Member> live_;
  Time now_ = seconds(100);
};

TEST_F(LivenessTest, SuspectsWhoeverIsSilentOrCutOffAndTellsItOnce) {
  EXPECT_FALSE(liveness_.judge(live_));
  pass(1, {1, 2, 3});
  const auto news = liveness_.judge(live_);
  ASSERT_TRUE(news);
  ASSERT_EQ(news->size(), 1u);
  EXPECT_EQ(news->front().peer, PeerId(4));
  EXPECT_FALSE(news->front().disconnected);
  EXPECT_FALSE(liveness_.judge(live_));
  liveness_.disconnected(PeerId(1));
  EXPECT_TRUE(liveness_.judge(live_)->front().disconnected);
  liveness_.heard(PeerId(4));
  liveness_.heard(PeerId(1));
  EXPECT_TRUE(liveness_.judge(live_)->empty());
  EXPECT_TRUE(liveness_.suspected().empty());
}

// Between them and the coordinator is somebody's Wi-Fi.
TEST_F(LivenessTest, IsMorePatientWithMembersOnOtherMachines) {
  live_[2].location.network = live_[3].location.network = "203.0.113.7";
  live_[1].location.network = "127.0.0.1";
  pass(11, {1, 2, 3, 4});
  liveness_.disconnected(PeerId(2));
  liveness_.disconnected(PeerId(3));
  pass(1.5, {1, 4});
  ASSERT_EQ(liveness_.lost(live_).size(), 1u);
  EXPECT_EQ(liveness_.lost(live_).front().member.peer, PeerId(2)) << "on this machine";
  live_.erase(live_.begin() + 1);
  pass(3, {1, 4});
  EXPECT_TRUE(liveness_.lost(live_).empty());
  pass(.7, {1, 4});
  ASSERT_EQ(liveness_.lost(live_).size(), 1u);
  EXPECT_EQ(liveness_.lost(live_).front().reason, "its connection is lost");
  live_.erase(live_.begin() + 1);
  pass(9, {1});
  EXPECT_TRUE(liveness_.lost(live_).empty());
  pass(1.5, {1});
  EXPECT_EQ(liveness_.lost(live_).size(), 1u);
}

TEST_F(LivenessTest, GivesUpWhoeverStaysAwayButNotWhileTheSilenceMayBeItsOwn) {
  pass(5, {1, 2, 3});
  EXPECT_TRUE(liveness_.lost(live_).empty());  // it has just begun
  pass(6, {1, 2, 3});
  ASSERT_EQ(liveness_.lost(live_).size(), 1u);
  EXPECT_EQ(liveness_.lost(live_).front().member.peer, PeerId(4));
  turn(2);  // it stood still
  EXPECT_TRUE(liveness_.lost(live_).empty());
}

TEST_F(LivenessTest, IsPatientOnceIfMostFallSilentTogether) {
  pass(11, {1, 2, 3, 4});
  EXPECT_TRUE(liveness_.lost(live_).empty());
  pass(4, {1});
  EXPECT_TRUE(liveness_.lost(live_).empty());
  pass(8, {1});
  EXPECT_TRUE(liveness_.lost(live_).empty());
  pass(3, {1});
  EXPECT_EQ(liveness_.lost(live_).size(), 3u);
}

TEST_F(LivenessTest, TellsTheFirstReportOfAConnection) {
  EXPECT_FALSE(liveness_.has_reported(PeerId(1)));
  EXPECT_TRUE(liveness_.reported(PeerId(1)));
  EXPECT_FALSE(liveness_.reported(PeerId(1)));
  liveness_.connected(PeerId(1));
  EXPECT_TRUE(liveness_.reported(PeerId(1)));
}

}  // namespace
}  // namespace isthmus::coordinator
