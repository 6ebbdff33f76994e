#include "scheduler/coordinator/trust.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace isthmus::coordinator {
namespace {

using ::testing::HasSubstr;

class TrustTest : public ::testing::Test {
 protected:
  TrustTest() {
    decisions_.apply(InviteRecord{{1}, 0, 0, {}, false});
    decisions_.apply(InviteRecord{{2}, 0, 0, {}, true});
    decisions_.apply(EnrolRecord{PeerId(1), {11}, {21}, "stranger", {}, protocol::PublicKey{1}});
    decisions_.apply(EnrolRecord{PeerId(2), {12}, {22}, "friend", {}, protocol::PublicKey{2}});
    decisions_.apply(EnrolRecord{PeerId(3), {13}, {23}, "own", {}, {}});
  }
  static protocol::Plan plan() {
    protocol::Plan plan;
    for (std::uint32_t s = 0; s < 4; ++s) plan.stages.push_back({s, s + 1, 1, 2});
    plan.microbatches = 1;
    return plan;
  }
  std::set<StageId> barred(const Trust& trust, std::uint32_t peer) const {
    return trust.barred(decisions_, PeerId(peer));
  }
  using Stages = std::set<StageId>;
  Decisions decisions_{plan()};
};

TEST_F(TrustTest, KeepsTheEndsForThoseWhomTheOwnerTrusts) {
  const Trust trust{4, true, 0};
  EXPECT_EQ(barred(trust, 1), (Stages{StageId(0), StageId(3)}));
  EXPECT_EQ(barred(trust, 2), Stages{});
  EXPECT_EQ(barred(trust, 3), Stages{}) << "this machine vouches for it";
  EXPECT_THAT(trust.objection(decisions_, PeerId(1), StageId(3)), HasSubstr("isthmus invite --trusted"));
  EXPECT_EQ(barred({4, false, 0}, 1), Stages{});
}

TEST_F(TrustTest, ShowsAnIdentitySoManyStagesOverTheWholeRun) {
  const Trust trust{4, false, 1};
  EXPECT_EQ(barred(trust, 1), Stages{});
  decisions_.apply(SeatRecord{PeerId(1), StageId(2), ReplicaId(0)});
  EXPECT_EQ(barred(trust, 1), (Stages{StageId(0), StageId(1), StageId(3)}));
  // Also as somebody new, with the same identity.
  decisions_.apply(RevokeRecord{PeerId(1), "by the owner", false});
  decisions_.apply(EnrolRecord{PeerId(4), {11}, {21}, "stranger", {}, protocol::PublicKey{1}});
  EXPECT_EQ(barred(trust, 4), (Stages{StageId(0), StageId(1), StageId(3)}));
  EXPECT_THAT(trust.objection(decisions_, PeerId(4), StageId(1)), HasSubstr("has served stage 2"));
}

TEST_F(TrustTest, NeverShowsAllOfThem) {
  const Trust trust{4, false, 100};
  for (const std::uint32_t stage : {0u, 1u}) decisions_.apply(SeatRecord{PeerId(1), StageId(stage), ReplicaId(0)});
  EXPECT_EQ(barred(trust, 1), Stages{});
  // A move counts as a seat does.
  decisions_.apply(MoveRecord{PeerId(1), {StageId(2), ReplicaId(0)}, ""});
  EXPECT_EQ(barred(trust, 1), Stages{StageId(3)});
}

}  // namespace
}  // namespace isthmus::coordinator
