#include "router/connections.h"

#include <gtest/gtest.h>

#include <utility>

namespace isthmus::router {
namespace {

protocol::Plan four_stages() {
  protocol::Plan plan;
  for (std::uint32_t s = 0; s < 4; ++s) plan.stages.push_back({s, s + 1, 1, 2});
  plan.steps = 10;
  plan.microbatches = 2;
  return plan;
}

protocol::Member member_at(std::uint32_t peer, std::uint32_t stage, std::uint32_t life = 0) {
  return {PeerId(peer), SessionId(peer * 10 + life), StageId(stage), ReplicaId(0), {}, {}};
}

constexpr bool kRelays = true, kNoRelays = false;
using Ways = std::vector<protocol::Way>;
using enum protocol::Way;

// Behind a router of its own, or where the coordinator can dial it.
protocol::Location at(const std::string& network, bool open = false) {
  if (!open) return {network, {}};
  return {network, {"tcp://" + network + ":40000", "tcp://" + network + ":40001"}};
}

TEST(ConnectionsRule, TheLaterOneDialsUnlessOnlyItCanBeDialled) {
  EXPECT_TRUE(later_dials(at("a", true), at("b", true)));
  EXPECT_TRUE(later_dials(at("a", true), at("b")));
  EXPECT_FALSE(later_dials(at("a"), at("b", true)));
  EXPECT_TRUE(later_dials(at("a"), at("b"))) << "through a relay";
  EXPECT_TRUE(later_dials(at("a"), at("a"))) << "on one network";
}

TEST(ConnectionsRule, TheBestWayIsTriedFirst) {
  EXPECT_EQ(ways(at("a"), at("b"), kRelays), Ways{kRelay});
  EXPECT_EQ(ways(at("a"), at("b"), kNoRelays), Ways{});
  EXPECT_EQ(ways(at("a"), at("b", true), kRelays), (Ways{kOutside, kRelay}));
  EXPECT_EQ(ways(at("a"), at("a"), kRelays), (Ways{kNetwork, kRelay}));
  EXPECT_EQ(ways(at("a"), at("a", true), kNoRelays), (Ways{kNetwork, kOutside}));
}

// Worker 5 of stage 2, whose steps skip no stage: it exchanges tensors with stages 1 to 3.
class ConnectionsTest : public ::testing::Test {
 protected:
  ConnectionsTest() {
    view_.step = StepId(1);
    view_.live = {member_at(1, 0), member_at(3, 1), member_at(4, 2), member_at(5, 2), member_at(6, 2), member_at(7, 3)};
  }
  void shows() {
    connections_.view_comes(view_, now_);
    context_.view = view_;
    context_.paths = protocol::StepPaths(context_.plan, view_.step, view_.absent);
    for (auto& effect : std::exchange(context_.effects, {})) {
      if (const auto* in = std::get_if<protocol::LetIn>(&effect)) let_in_.push_back(in->member.peer.value);
      if (const auto* dial = std::get_if<protocol::Dial>(&effect)) {
        dialled_.push_back(dial->member.peer.value);
        ways_.push_back(dial->way);
      }
    }
  }
  void ticks() {
    connections_.tick(now_);
    for (auto& effect : std::exchange(context_.effects, {}))
      if (const auto* dial = std::get_if<protocol::Dial>(&effect)) ways_.push_back(dial->way);
  }
  using Peers = std::vector<std::uint32_t>;
  Time now_ = seconds(1000);
  protocol::View view_;
  WorkerContext context_{
      four_stages(), {PeerId(5), StageId(2), ReplicaId(0), {}, seconds(2), 10e6, {}, true}, {}, {}, SessionId(50), {}};
  Connections connections_{context_};
  Peers let_in_, dialled_;
  Ways ways_;
};

TEST_F(ConnectionsTest, LetInNeighboursAndSiblingsAndTheLaterOneDials) {
  shows();
  EXPECT_EQ(let_in_, (Peers{3, 4, 6, 7}));
  EXPECT_EQ(dialled_, (Peers{3, 4}));
  shows();
  EXPECT_EQ(let_in_.size(), 4u) << "once a life";
  view_.live[1] = member_at(3, 1, 1);
  shows();
  EXPECT_EQ(let_in_, (Peers{3, 4, 6, 7, 3}));
  EXPECT_EQ(dialled_, (Peers{3, 4, 3}));
}

// It exchanges no tensor with that one, so nothing else would name it.
TEST_F(ConnectionsTest, LetInWhomALinkIsMeasuredWith) {
  view_.partners = {member_at(1, 0)};
  shows();
  EXPECT_EQ(let_in_, (Peers{3, 4, 6, 7, 1}));
  EXPECT_EQ(dialled_, (Peers{3, 4})) << "whoever is told to measure dials";
}

TEST_F(ConnectionsTest, MissWhoNeverCameAndWhoWasLost) {
  shows();
  for (const std::uint32_t peer : {4u, 6u, 7u}) connections_.connected(PeerId(peer));
  EXPECT_TRUE(connections_.unreachable(now_ + seconds(9)).empty()) << "everybody may be busy with its start";
  EXPECT_EQ(connections_.unreachable(now_ + seconds(10)), std::vector{SessionId(30)});
  connections_.connected(PeerId(3));
  EXPECT_TRUE(connections_.unreachable(now_ + seconds(60)).empty());
  connections_.lost(PeerId(7), now_ + seconds(60));
  EXPECT_TRUE(connections_.unreachable(now_ + seconds(61)).empty());
  EXPECT_EQ(connections_.unreachable(now_ + seconds(62)), std::vector{SessionId(70)});
}

TEST_F(ConnectionsTest, DialWhoIsElsewhereThere) {
  view_.live = {member_at(3, 1), member_at(5, 2)};
  view_.live[0].location = at("a", true);
  view_.live[1].location = at("b");
  shows();
  connections_.connected(PeerId(3));
  EXPECT_EQ(std::exchange(dialled_, {}), Peers{3});
  shows();
  EXPECT_EQ(dialled_, Peers{}) << "where it was";
  view_.live[0].location = at("c", true);
  shows();
  EXPECT_EQ(std::exchange(dialled_, {}), Peers{3});
  view_.live[1].location = at("d");
  shows();
  EXPECT_EQ(dialled_, Peers{}) << "its own address is nothing that it dials";
}

// Machines with one address may be kept apart all the same.
TEST_F(ConnectionsTest, TryTheNextWayToWhoIsNotReached) {
  view_.live = {member_at(3, 1), member_at(5, 2)};
  shows();
  EXPECT_EQ(std::exchange(ways_, {}), Ways{kNetwork});
  EXPECT_EQ(connections_.next_due(), now_ + seconds(3));
  now_ += seconds(2.9);
  ticks();
  EXPECT_EQ(ways_, Ways{});
  now_ += seconds(0.1);
  ticks();
  EXPECT_EQ(std::exchange(ways_, {}), Ways{kRelay});
  connections_.connected(PeerId(3));
  EXPECT_EQ(connections_.next_due(), kNever);
  now_ += seconds(60);
  ticks();
  EXPECT_EQ(ways_, Ways{}) << "a way that is good stays";
  connections_.lost(PeerId(3), now_);
  now_ += seconds(3);
  ticks();
  EXPECT_EQ(ways_, Ways{kNetwork});
}

// Two lives would take turns, and who has left would be dialled for ever.
TEST_F(ConnectionsTest, ForgetEarlierLivesAndWhoHasLeft) {
  view_.live = {member_at(3, 1), member_at(4, 2), member_at(5, 2)};
  shows();
  EXPECT_EQ(std::exchange(ways_, {}), (Ways{kNetwork, kNetwork}));
  view_.live = {member_at(3, 1, 1), member_at(5, 2)};
  shows();
  EXPECT_EQ(std::exchange(ways_, {}), Ways{kNetwork});
  now_ += seconds(3);
  ticks();
  EXPECT_EQ(ways_, Ways{kRelay}) << "to the newer life of 3 alone";
}

// Whether this one dials depends on where it is itself, which the view says.
TEST_F(ConnectionsTest, LeaveItToTheEarlierOneIfOnlyThisOneCanBeDialled) {
  view_.live = {member_at(3, 1), member_at(5, 2), member_at(7, 3)};
  view_.live[0].location = at("a");
  view_.live[1].location = at("b", true);
  view_.live[2].location = at("c", true);
  shows();
  EXPECT_EQ(dialled_, Peers{}) << "3 dials, and the later one, 7";
  EXPECT_EQ(let_in_, (Peers{3, 7}));
  view_.live[1].location = at("b");
  shows();
  EXPECT_EQ(dialled_, (Peers{3, 7}));
  EXPECT_EQ(ways_, (Ways{kRelay, kOutside}));
}

// Through routers and relays it takes longer to find out.
TEST_F(ConnectionsTest, ArePatientWithOtherNetworks) {
  view_.live = {member_at(3, 1), member_at(5, 2)};
  view_.live[0].location = at("a");
  view_.live[1].location = at("b");
  shows();
  connections_.connected(PeerId(3));
  connections_.lost(PeerId(3), now_);
  EXPECT_TRUE(connections_.unreachable(now_ + seconds(9.9)).empty());
  EXPECT_EQ(connections_.unreachable(now_ + seconds(10)), std::vector{SessionId(30)});
}

}  // namespace
}  // namespace isthmus::router
