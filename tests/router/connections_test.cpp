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

static_assert(way_between(Reach::kDirect, Reach::kDirect) == Way::kLaterDials);
static_assert(way_between(Reach::kDirect, Reach::kNone) == Way::kLaterDials);
static_assert(way_between(Reach::kNone, Reach::kDirect) == Way::kEarlierDials);
static_assert(way_between(Reach::kNone, Reach::kNone) == Way::kRelay);

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
      if (const auto* dial = std::get_if<protocol::Dial>(&effect)) dialled_.push_back(dial->member.peer.value);
    }
  }
  using Peers = std::vector<std::uint32_t>;
  Time now_ = seconds(1000);
  protocol::View view_;
  WorkerContext context_{
      four_stages(), {PeerId(5), StageId(2), ReplicaId(0), {}, seconds(2), 10e6, {}}, {}, {}, SessionId(50), {}};
  Connections connections_{context_};
  Peers let_in_, dialled_;
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

}  // namespace
}  // namespace isthmus::router
