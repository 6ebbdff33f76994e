// A head that became slow returns what it has not begun.
#include <gtest/gtest.h>

#include <algorithm>

#include "scheduler/coordinator/coordinator.h"
#include "seated.h"

namespace isthmus::coordinator {
namespace {

// Two heads, 100 and 101, and a tail, 200; one step of eight microbatches.
class Dealing : public ::testing::Test {
 protected:
  Dealing() : plan_(plan()), coordinator_(seated(plan_, seats(), {})) {
    hear(coordinator_.begin(0, now_));
    for (const std::uint32_t peer : {1u, 2u, 3u}) say(peer, report(peer));
  }
  static protocol::Plan plan() {
    protocol::Plan plan;
    plan.stages = {{0, 1, 2, 8}, {1, 2, 1, 8}};
    plan.steps = 4;
    plan.microbatches = 8;
    plan.tokens_per_microbatch = 10;
    return plan;
  }
  // All of the running step is done.
  void commit(std::uint64_t first_takes_us, std::uint64_t second_takes_us) {
    const std::uint64_t step = coordinator_.decisions().step.value;
    while (coordinator_.decisions().step.value == step) {
      for (const std::uint32_t peer : {1u, 2u, 3u}) {
        protocol::Report r = report(peer, peer == 1 ? first_takes_us : second_takes_us);
        r.version = step - 1;
        for (std::uint32_t m = 0; m < 8; ++m)
          if (peer == 3 || coordinator_.decisions().head_owner[m] == session_of(peer)) r.done.insert(MicrobatchId(m));
        r.prepared_epoch = r.epoch;
        if (peer == 3)
          for (std::uint32_t m = 0; m < 8; ++m) r.losses.push_back({MicrobatchId(m), 1, 10});
        say(peer, r);
      }
      now_ += std::chrono::milliseconds(100);
      hear(coordinator_.tick(now_));
    }
  }
  static std::vector<Seat> seats() {
    return {{PeerId(1), StageId(0), ReplicaId(0), {}},
            {PeerId(2), StageId(0), ReplicaId(1), {}},
            {PeerId(3), StageId(1), ReplicaId(0), {}}};
  }
  static SessionId session_of(std::uint32_t peer) { return SessionId(peer == 3 ? 200 : 99 + peer); }

  void hear(std::vector<CoordinatorEffect> effects) {
    for (auto& effect : effects) {
      if (auto* append = std::get_if<AppendRecord>(&effect)) log_.push_back(append->record);
      if (auto* send = std::get_if<SendView>(&effect)) views_[send->peer] = send->view;
    }
  }
  protocol::Report report(std::uint32_t peer, std::uint64_t service_us = 1000) const {
    protocol::Report r;
    r.session = session_of(peer);
    r.stage = StageId(peer == 3 ? 1 : 0);
    r.replica = ReplicaId(peer == 2 ? 1 : 0);
    r.step = coordinator_.decisions().step;
    r.attempt = coordinator_.decisions().attempt;
    r.epoch = coordinator_.decisions().epoch;
    r.done = DoneSet(8);
    r.stats.service_us = service_us;
    return r;
  }
  void say(std::uint32_t peer, const protocol::Report& r) { hear(coordinator_.received(PeerId(peer), r, now_)); }
  std::vector<std::uint32_t> owned_by(std::uint32_t peer) const {
    std::vector<std::uint32_t> owned;
    for (std::uint32_t m = 0; m < 8; ++m)
      if (coordinator_.decisions().head_owner[m] == session_of(peer)) owned.push_back(m);
    return owned;
  }
  // The first head has become so much slower and has begun one.
  protocol::Report slow_head(std::uint64_t service_us) const {
    protocol::Report r = report(1, service_us);
    r.returned = DoneSet(8);
    for (const auto m : owned_by(1)) r.returned.insert(MicrobatchId(m));
    r.returned = r.returned.without(only(owned_by(1).front()));
    return r;
  }
  static DoneSet only(std::uint32_t m) {
    DoneSet set(8);
    set.insert(MicrobatchId(m));
    return set;
  }
  std::size_t deals() const {
    return static_cast<std::size_t>(
        std::ranges::count_if(log_, [](const auto& r) { return std::holds_alternative<DealRecord>(r); }));
  }
  void expel(std::uint32_t peer) { hear(coordinator_.process_ended(PeerId(peer), now_)); }

  const protocol::Plan plan_;
  Coordinator coordinator_;
  Time now_ = seconds(100);
  std::vector<LogRecord> log_;
  std::map<PeerId, protocol::View> views_;
};

TEST_F(Dealing, WhatASlowHeadHasNotBegunGoesToTheOther) {
  ASSERT_EQ(owned_by(1).size(), 4u);
  say(1, slow_head(9000));
  EXPECT_EQ(deals(), 1u);
  EXPECT_EQ(owned_by(1).size(), 1u);
  EXPECT_EQ(owned_by(2).size(), 7u);
  // Nobody has sent them on, so nobody has to search.
  EXPECT_TRUE(std::ranges::none_of(coordinator_.decisions().head_again, [](bool again) { return again; }));
  EXPECT_EQ(views_.at(PeerId(1)).dealt_again, coordinator_.decisions().epoch);
  EXPECT_EQ(views_.at(PeerId(2)).dealt_again, EpochId(0));
}

TEST_F(Dealing, ByWhatTheHeadsHaveLeftAndTakeForOne) {
  say(2, report(2, 1000));
  say(1, slow_head(2000));
  EXPECT_EQ(owned_by(1).size(), 3u);  // 3 × 2000 beside 5 × 1000; the sixth would be done as late
}

// Repeated, delayed: by then it may have come back to the head that once returned it, and have been begun.
TEST_F(Dealing, AReportOfBeforeTheDealDealsNothingMore) {
  const protocol::Report late = slow_head(9000);
  say(1, late);
  say(1, late);
  EXPECT_EQ(deals(), 1u);
  expel(2);
  ASSERT_EQ(owned_by(1).size(), 8u);
  say(1, late);
  EXPECT_EQ(deals(), 1u);
  EXPECT_EQ(owned_by(1).size(), 8u);
  // The head sees that these are decisions about what it had returned.
  EXPECT_GT(views_.at(PeerId(1)).dealt_again, late.epoch);
}

TEST_F(Dealing, WhatIsDoneOrNotItsOwnStaysWhereItIs) {
  protocol::Report r = slow_head(9000);
  const std::uint32_t done = owned_by(1).back(), foreign = owned_by(2).front();
  r.done.insert(MicrobatchId(done));
  r.returned.insert(MicrobatchId(foreign));
  say(1, r);
  EXPECT_EQ(coordinator_.decisions().head_owner[done], session_of(1));
  EXPECT_EQ(coordinator_.decisions().head_owner[foreign], session_of(2));
  EXPECT_EQ(owned_by(1).size(), 2u);
}

// A head has asked for what its microbatches of the step before read in this one.
TEST_F(Dealing, AHeadKeepsWhatItHadAsFarAsItsShareGoes) {
  const auto first = owned_by(1), second = owned_by(2);
  ASSERT_EQ(first.size(), 4u);
  commit(1000, 990);  // a little slower: the turns change, the shares do not
  EXPECT_EQ(owned_by(1), first);
  EXPECT_EQ(owned_by(2), second);
  commit(3000, 1000);
  EXPECT_EQ(owned_by(1).size(), 2u);
  EXPECT_TRUE(std::ranges::includes(first, owned_by(1)));
  EXPECT_TRUE(std::ranges::includes(owned_by(2), second));
}

TEST_F(Dealing, ACoordinatorThatStartsAgainKnowsWhoseTheyAre) {
  say(1, slow_head(9000));
  Coordinator again = seated(plan_, seats(), {});
  again.replay(log_);
  EXPECT_EQ(again.decisions().head_owner, coordinator_.decisions().head_owner);
  EXPECT_EQ(again.decisions().dealt_again, coordinator_.decisions().dealt_again);
}

}  // namespace
}  // namespace isthmus::coordinator
