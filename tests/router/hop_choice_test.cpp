#include "router/hop_choice.h"

#include <gtest/gtest.h>

#include "base/counter_random.h"

namespace isthmus::router {
namespace {

// Replicas of the next stage with the speeds and links they really have; the choice learns them from receipts.
class Hops : public testing::Test {
 protected:
  void members(std::vector<std::uint64_t> sessions) {
    list_.clear();
    for (const auto s : sessions)
      list_.push_back(
          {PeerId(static_cast<std::uint32_t>(s)), SessionId(s), StageId(1), ReplicaId(static_cast<std::uint32_t>(s))});
    std::vector<const protocol::Member*> pointers;
    for (const auto& member : list_) pointers.push_back(&member);
    newcomers_ = hops_.set_members(pointers, now_);
  }
  SessionId give(std::uint64_t bytes = 1000) {
    const SessionId to = choose({}, bytes);
    hops_.charge(to, bytes, now_);
    return to;
  }
  SessionId choose(const std::vector<SessionId>& suspected, std::uint64_t bytes = 1000, SessionId avoid = kNoSession) {
    std::vector<const protocol::Member*> all;
    for (const auto& member : list_) all.push_back(&member);
    return hops_.choose(all, suspected, bytes, now_, avoid);
  }
  void says(std::uint64_t session, Duration backlog, Duration service) {
    hops_.receipt(
        SessionId(session),
        {static_cast<std::uint64_t>(backlog.count() / 1000), static_cast<std::uint64_t>(service.count() / 1000)}, now_);
  }

  Time now_{seconds(100)};
  HopChoice hops_;
  std::vector<protocol::Member> list_;
  std::vector<SessionId> newcomers_;
};

TEST_F(Hops, EqualReplicasGetEqualShares) {
  members({1, 2, 3});
  std::map<SessionId, int> given;
  for (int i = 0; i < 30; ++i) ++given[give()];
  for (const auto& [session, count] : given) EXPECT_EQ(count, 10) << session.value;
}

// Two heads send at the same time and know nothing of each other: each begins with another replica, also if one of them
// seems to be a little nearer.
TEST_F(Hops, SiblingsBeginWithDifferentReplicas) {
  members({1, 2});
  const std::vector<const protocol::Member*> all{&list_[0], &list_[1]};
  HopChoice siblings[] = {HopChoice(protocol::Routing::kFinishTime, ReplicaId(0)),
                          HopChoice(protocol::Routing::kFinishTime, ReplicaId(1))};
  std::map<SessionId, int> first;
  for (auto& hops : siblings) {
    hops.set_members(all, now_);
    for (const std::uint64_t session : {1u, 2u}) hops.receipt(SessionId(session), {0, 80'000}, now_);
    hops.measured(SessionId(1), 0, seconds(.1));
    hops.measured(SessionId(2), 0, seconds(.12));
    ++first[hops.choose(all, {}, 1000, now_)];
  }
  EXPECT_EQ(first.size(), 2u);
}

TEST_F(Hops, ASlowReplicaGetsTheShareOfItsSpeed) {
  members({1, 2});
  says(1, {}, seconds(1));
  says(2, {}, seconds(3));
  std::map<SessionId, int> given;
  for (int i = 0; i < 32; ++i) ++given[give()];
  EXPECT_EQ(given[SessionId(1)], 24);
  EXPECT_EQ(given[SessionId(2)], 8);
}

TEST_F(Hops, WhatAReplicaSaysOfItsQueueReplacesTheGuess) {
  members({1, 2});
  says(1, {}, seconds(1));
  says(2, {}, seconds(1));
  EXPECT_EQ(give(), SessionId(1));
  hops_.confirmed(SessionId(1), 1000);
  says(1, seconds(10), seconds(1));  // others give it work too
  for (int i = 0; i < 9; ++i) EXPECT_EQ(give(), SessionId(2));
}

TEST_F(Hops, WhatIsOnItsWayIsNotForgottenByAReceipt) {
  members({1, 2});
  says(1, {}, seconds(1));
  says(2, {}, seconds(1));
  for (int i = 0; i < 4; ++i) give();
  says(1, {}, seconds(1));  // written before any of its two arrived
  EXPECT_EQ(hops_.finish(SessionId(1), 0, now_), now_ + seconds(3));
}

TEST_F(Hops, ARefusalGivesTheChargeBack) {
  members({1, 2});
  says(1, {}, seconds(1));
  says(2, {}, seconds(1));
  const SessionId first = give();
  hops_.confirmed(first, 1000);
  hops_.give_back(first);
  EXPECT_EQ(hops_.finish(first, 0, now_), now_ + seconds(1));
  EXPECT_NE(choose({}, 1000, first), first);
}

TEST_F(Hops, SuspectedReplicasAreTheLastResort) {
  members({1, 2});
  says(2, seconds(60), seconds(1));
  EXPECT_EQ(choose({SessionId(1)}), SessionId(2));
  EXPECT_EQ(choose({SessionId(1), SessionId(2)}), SessionId(1));
}

TEST_F(Hops, ANewcomerStartsAtTheMedianLoadAndGoneOnesAreForgotten) {
  members({1, 2, 3});
  says(1, seconds(2), seconds(1));
  says(2, seconds(4), seconds(1));
  says(3, seconds(60), seconds(1));
  members({1, 2, 3, 4});
  EXPECT_EQ(newcomers_, std::vector{SessionId(4)});
  EXPECT_EQ(hops_.finish(SessionId(4), 0, now_), now_ + seconds(5));
  members({2, 4});
  hops_.receipt(SessionId(1), {}, now_);  // a late one
  hops_.give_back(SessionId(1));
  EXPECT_EQ(give(), SessionId(2));
}

TEST_F(Hops, AFarReplicaIsChosenOnceTheNearOneIsBusy) {
  members({1, 2});
  says(1, {}, seconds(.1));
  says(2, {}, seconds(.1));
  for (int i = 0; i < 8; ++i) {
    hops_.measured(SessionId(1), 0, seconds(.02));
    hops_.measured(SessionId(2), 0, seconds(.6));
  }
  int near = 0;
  while (give() == SessionId(1)) ++near;
  EXPECT_EQ(near, 3);  // .11, .21, .31 against .4; the fourth would be done at .41
}

TEST_F(Hops, RoundRobinTakesNoAccountOfSpeed) {
  hops_ = HopChoice(protocol::Routing::kRoundRobin);
  members({1, 2});
  says(1, {}, seconds(1));
  says(2, seconds(60), seconds(3));
  for (std::uint64_t i = 0; i < 6; ++i) EXPECT_EQ(give(), SessionId(1 + i % 2));
}

TEST(LinkEstimate, FindsLatencyAndRateThoughAThirdOfTheSamplesLie) {
  const CounterRandom random(3, "link samples");
  LinkEstimate link;
  for (std::uint64_t i = 0; i < 24; ++i) {
    const std::uint64_t bytes = 2'000 + random.below(400'000, 2 * i);
    const double spike = i % 3 == 0 ? 5.0 : 0.0;
    link.sample(bytes, seconds(.1 + double(bytes) * 1e-7 + spike));
  }
  EXPECT_NEAR(to_seconds(link.latency()), .1, .03);
  EXPECT_NEAR(link.seconds_per_byte(), 1e-7, 3e-8);
}

TEST(LinkEstimate, NeverClaimsNegativeTimes) {
  LinkEstimate link;
  link.sample(1'000'000, seconds(.1));
  link.sample(1'000, seconds(.9));
  EXPECT_GE(link.seconds_per_byte(), 0);
  EXPECT_GE(link.latency(), Duration{});
}

}  // namespace
}  // namespace isthmus::router
