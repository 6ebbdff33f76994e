// What a member that nobody vouches for can say, and how little comes of it.

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "scheduler/coordinator/coordinator.h"
#include "seated.h"

namespace isthmus::coordinator {
namespace {

protocol::Plan two_of_two() {
  protocol::Plan plan;
  plan.stages = {{0, 1, 2, 4}, {1, 2, 2, 4}};
  plan.steps = 4;
  plan.microbatches = 2;
  plan.tokens_per_microbatch = 10;
  return plan;
}

// Workers 1 and 2 of stage 0 and 1 are the owner's. Worker 3, a second one of stage 1, came with an invite.
class Strangers : public ::testing::Test {
 protected:
  Strangers() {
    std::vector<LogRecord> log =
        seating_log({{PeerId(1), StageId(0), ReplicaId(0), {}}, {PeerId(2), StageId(1), ReplicaId(0), {}}});
    const protocol::PublicKey invite{7}, identity{3};
    log.push_back(InviteRecord{invite, 0, 0, {}, false});
    log.push_back(EnrolRecord{PeerId(3), identity, {}, "stranger", {}, invite});
    log.push_back(SeatRecord{PeerId(3), StageId(1), ReplicaId(1)});
    coordinator_.replay(log);
    hear(coordinator_.begin(0, now_));
    say(1, report(1));
    say(2, report(2));
  }
  protocol::Report report(std::uint32_t peer) const {
    protocol::Report r;
    r.session = SessionId(100 * peer);
    r.stage = StageId(peer == 1 ? 0 : 1);
    r.replica = ReplicaId(peer == 3 ? 1 : 0);
    r.version = coordinator_.decisions().step.value - 1;
    r.step = coordinator_.decisions().step;
    r.attempt = coordinator_.decisions().attempt;
    r.done = DoneSet(plan_.count(coordinator_.decisions().step));
    return r;
  }
  // Of all that worker's work on the step.
  protocol::Report prepared(std::uint32_t peer) const {
    protocol::Report r = report(peer);
    for (std::uint32_t m = 0; m < r.done.count(); ++m)
      if (peer != 3) r.done.insert(MicrobatchId(m));
    r.prepared_epoch = coordinator_.decisions().epoch;
    return r;
  }
  void say(std::uint32_t peer, const protocol::Report& r) { hear(coordinator_.received(PeerId(peer), r, now_)); }
  void hear(std::vector<CoordinatorEffect> effects) {
    for (auto& effect : effects) {
      if (const auto* step = std::get_if<StepCommitted>(&effect)) outcomes_.push_back(step->outcome);
      if (const auto* happened = std::get_if<Happened>(&effect)) events_.push_back(*happened);
      if (const auto* append = std::get_if<AppendRecord>(&effect)) log_.push_back(append->record);
    }
  }

  const protocol::Plan plan_ = two_of_two();
  Coordinator coordinator_{plan_, {}};
  Time now_ = seconds(100);
  std::vector<StepOutcome> outcomes_;
  std::vector<LogRecord> log_;
  std::vector<Happened> events_;
};

TEST_F(Strangers, EndTheirOwnPartAloneByAFault) {
  for (const bool member : {false, true}) {
    if (member) say(3, report(3));
    ASSERT_EQ(coordinator_.decisions().live_of(PeerId(3)) != nullptr, member);
    Coordinator other = coordinator_;
    protocol::Report broken = report(3);
    if (!member) broken.version = protocol::kNoVersion;
    broken.fault = "no more of this";
    const auto effects = other.received(PeerId(3), broken, now_);
    EXPECT_EQ(other.phase(), protocol::Phase::kRunning);
    EXPECT_EQ(other.decisions().live_of(PeerId(3)), nullptr);
    EXPECT_FALSE(other.decisions().place_of(PeerId(3)));
    EXPECT_TRUE(std::ranges::any_of(effects, [](const auto& e) { return std::holds_alternative<ShutOut>(e); }));
  }
  protocol::Report broken = report(2);
  broken.fault = "the disk is full";
  say(2, broken);
  EXPECT_EQ(coordinator_.phase(), protocol::Phase::kStopping) << "the owner's own machine";
}

TEST_F(Strangers, KnowNoLossUnlessTheyServeTheLastStage) {
  protocol::Report head = prepared(1), tail = prepared(2);
  for (std::uint32_t m = 0; m < head.done.count(); ++m) {
    head.losses.push_back({MicrobatchId(m), std::numeric_limits<double>::quiet_NaN(), 10});
    tail.losses.push_back({MicrobatchId(m), 30.0, 10});
  }
  say(1, head);
  say(2, tail);
  ASSERT_EQ(outcomes_.size(), 1u);
  EXPECT_TRUE(outcomes_[0].commit.apply);
  EXPECT_DOUBLE_EQ(outcomes_[0].figures.loss, 3.0);
}

TEST_F(Strangers, HaveNoCheckpointOfWhatNobodyCommitted) {
  for (const std::uint32_t peer : {1u, 2u}) {
    protocol::Report r = report(peer);
    r.checkpointed = std::numeric_limits<std::uint64_t>::max() - 1;
    say(peer, r);
  }
  EXPECT_EQ(coordinator_.decisions().checkpointed, std::vector<std::uint64_t>(2, 0));
  EXPECT_TRUE(std::ranges::none_of(
      log_, [](const LogRecord& record) { return std::holds_alternative<CheckpointRecord>(record); }));
  for (const auto& holder : coordinator_.checkpoint_holders()) EXPECT_EQ(holder.version, 0u);
}

TEST_F(Strangers, FillNobodysDiskWithWarnings) {
  const auto about_it = [&] {
    return std::ranges::count_if(events_, [](const Happened& h) { return peer_of(h.event) == PeerId(3); });
  };
  protocol::Report r = report(3);
  say(3, r);
  events_.clear();
  for (int n = 0; n < 10'000; ++n) {
    r.warning = fmt::format("number {}", n);
    r.fetching = r.warning;
    ++r.stats.rejected_frames;
    now_ += std::chrono::microseconds(100);
    say(3, r);
  }
  EXPECT_GE(about_it(), 20);
  EXPECT_LE(about_it(), 25) << "in a second";
  // Others are heard as before, and later it is told how much there was.
  protocol::Report other = report(2);
  other.warning = "the disk is nearly full";
  say(2, other);
  EXPECT_EQ(text_of(events_.back().event), other.warning);
  now_ += seconds(30);
  r.warning = "the last";
  r.fetching.clear();
  say(3, r);
  ASSERT_GE(events_.size(), 2u);
  EXPECT_EQ(text_of(events_.back().event), "the last");
  EXPECT_NE(text_of(events_[events_.size() - 2].event).find("more events that it caused are left out"),
            std::string::npos);
}

}  // namespace
}  // namespace isthmus::coordinator
