// A replica that becomes slow in mid-step, as it and as its predecessors see it: one real worker, its peers played by
// hand.
#include <gtest/gtest.h>

#include <algorithm>

#include "router/answered_tokens.h"
#include "router/worker_steps.h"

namespace isthmus::router {
namespace {

constexpr Duration kUsual = std::chrono::milliseconds(100);
constexpr std::uint32_t kCount = 8;

// Three stages of two; the worker is the first replica of one of them.
class SlowReplica : public ::testing::Test {
 protected:
  void serve(std::uint32_t stage) {
    for (std::uint32_t s = 0; s < 3; ++s) plan_.stages.push_back({s, s + 1, 2, kCount});
    plan_.steps = 4;
    plan_.microbatches = kCount;
    plan_.tokens_per_microbatch = 1;
    me_ = PeerId(1 + 2 * stage);
    worker_.emplace(plan_, WorkerIdentity{me_, StageId(stage), ReplicaId(0), {}, seconds(2)}, WorkerSteps::Origin(), 5);
    view_.epoch = EpochId(3);
    view_.step = StepId(1);
    for (std::uint32_t peer = 1; peer <= 6; ++peer)
      view_.live.push_back(
          {PeerId(peer), SessionId(10 + peer), StageId((peer - 1) / 2), ReplicaId((peer - 1) % 2), {}, {}});
    view_.live[me_.value - 1].session = worker_->session();
    view_.last_session = worker_->session();
    view_.head_owner.assign(kCount, stage == 0 ? worker_->session() : SessionId(11));
    view_.head_again.assign(kCount, false);
    see();
  }
  void take(const std::vector<protocol::WorkerEffect>& effects) {
    for (const auto& effect : effects) {
      out_.push_back(effect);
      if (const auto* run = std::get_if<protocol::RunOperation>(&effect)) running_ = *run;
    }
    for (const auto& ids : answered_tokens(plan_, effects)) take(worker_->tokens_received(ids, now_));
  }
  void see() {
    out_.clear();
    take(worker_->view_received(view_, now_));
  }
  template <class Body>
  void hear(PeerId from, Body body) {
    out_.clear();
    take(worker_->message_received(from, std::move(body), now_));
  }
  void ends(Duration took) {
    out_.clear();
    now_ += took;
    const auto run = *std::exchange(running_, std::nullopt);
    take(worker_->job_done(protocol::OperationDone{run.tag, run.task, {}, {}, {}, took}, now_));
  }
  void wait(Duration time) {
    out_.clear();
    now_ += time;
    take(worker_->tick(now_));
  }
  template <class Body>
  std::vector<std::pair<PeerId, Body>> sent() const {
    std::vector<std::pair<PeerId, Body>> found;
    for (const auto& effect : out_)
      if (const auto* message = std::get_if<protocol::SendMessage>(&effect))
        if (const auto* body = std::get_if<Body>(&message->message)) found.emplace_back(message->peer, *body);
    return found;
  }
  protocol::StepTag from(PeerId peer) const {
    return {SessionId(10 + peer.value), worker_->session(), view_.epoch, view_.step, view_.attempt};
  }
  protocol::Forward forward(PeerId peer, std::uint32_t m) const { return {from(peer), MicrobatchId(m), 1, false, {}}; }
  protocol::Load load(double backlog, double service, bool slow = false) const {
    return {static_cast<std::uint64_t>(backlog * 1e6), static_cast<std::uint64_t>(service * 1e6), slow};
  }

  protocol::Plan plan_;
  PeerId me_;
  std::optional<WorkerSteps> worker_;
  Time now_ = seconds(10);
  protocol::View view_;
  std::optional<protocol::RunOperation> running_;
  std::vector<protocol::WorkerEffect> out_;
};

TEST_F(SlowReplica, TellsThoseWhoWaitForItWhileItsSecondSlowOperationRuns) {
  serve(1);
  for (std::uint32_t m = 0; m < 6; ++m) hear(PeerId(1 + m % 2), forward(PeerId(1 + m % 2), m));
  for (int i = 0; i < 2; ++i) ends(kUsual);
  ends(5 * kUsual);
  EXPECT_TRUE(sent<protocol::Receipt>().empty());
  // Nobody has to send anything for that.
  EXPECT_LE(worker_->next_due(), now_ + 3 * kUsual);
  wait(2 * kUsual);
  EXPECT_TRUE(sent<protocol::Receipt>().empty());
  wait(kUsual);
  const auto told = sent<protocol::Receipt>();
  ASSERT_EQ(told.size(), 2u);  // each predecessor once
  EXPECT_NE(told[0].first, told[1].first);
  for (const auto& [peer, receipt] : told) {
    EXPECT_EQ(receipt.sent_us, protocol::kUnasked);
    EXPECT_TRUE(receipt.load.slow);
    EXPECT_GT(receipt.load.service_us, 450'000u);
  }
  wait(kUsual);
  EXPECT_TRUE(sent<protocol::Receipt>().empty());
}

TEST_F(SlowReplica, SaysNothingOfOneOperationThatTakesTwiceAsLong) {
  serve(1);
  for (std::uint32_t m = 0; m < 6; ++m) hear(PeerId(1), forward(PeerId(1), m));
  for (int i = 0; i < 5; ++i) {
    ends(i == 2 ? 2 * kUsual : kUsual);
    EXPECT_TRUE(sent<protocol::Receipt>().empty());
  }
}

// The last first: the successor would begin them last.
TEST_F(SlowReplica, ItsPredecessorTakesBackWhatItHasNotBegun) {
  serve(0);
  std::map<PeerId, std::vector<MicrobatchId>> given;
  for (const PeerId peer : {PeerId(3), PeerId(4)})
    hear(peer, protocol::Receipt{from(peer), static_cast<std::uint64_t>(now_.count() / 1000), load(0, 0.3)});
  for (std::uint32_t m = 0; m < kCount; ++m) {
    ends(kUsual);
    for (const auto& [peer, message] : sent<protocol::Forward>()) {
      given[peer].push_back(message.microbatch);
      hear(peer, protocol::Held{from(peer), message.microbatch, message.n,
                                load(0.3 * static_cast<double>(given[peer].size()), 0.3)});
    }
  }
  ASSERT_GE(given[PeerId(3)].size(), 3u);
  hear(PeerId(3), protocol::Receipt{from(PeerId(3)), protocol::kUnasked,
                                    load(1.5 * static_cast<double>(given[PeerId(3)].size()), 1.5, true)});
  const auto cancels = sent<protocol::Cancel>();
  ASSERT_GE(cancels.size(), 2u);
  EXPECT_EQ(cancels.front().second.microbatch, given[PeerId(3)].back());
  EXPECT_TRUE(std::ranges::all_of(cancels, [](const auto& c) { return c.first == PeerId(3); }));
  const auto asked = cancels.size();
  // The same word again takes back nothing twice.
  hear(PeerId(3), protocol::Receipt{from(PeerId(3)), protocol::kUnasked,
                                    load(1.5 * static_cast<double>(given[PeerId(3)].size()), 1.5, true)});
  EXPECT_TRUE(sent<protocol::Cancel>().empty());
  // What it lets go goes to the other at once, what it has begun stays.
  const auto& first = cancels.front().second;
  hear(PeerId(3), protocol::Cancelled{from(PeerId(3)), first.microbatch, first.n,
                                      load(1.5 * static_cast<double>(asked), 1.5, true)});
  ASSERT_EQ(sent<protocol::Forward>().size(), 1u);
  EXPECT_EQ(sent<protocol::Forward>().front().first, PeerId(4));
  const auto& last = cancels.back().second;
  hear(PeerId(3), protocol::TooLate{from(PeerId(3)), last.microbatch, last.n});
  EXPECT_TRUE(sent<protocol::Forward>().empty());
}

TEST_F(SlowReplica, NothingIsTakenBackIfTheOthersAreNoFaster) {
  serve(0);
  for (const PeerId peer : {PeerId(3), PeerId(4)})
    hear(peer, protocol::Receipt{from(peer), static_cast<std::uint64_t>(now_.count() / 1000), load(0, 0.3)});
  for (std::uint32_t m = 0; m < kCount; ++m) {
    ends(kUsual);
    for (const auto& [peer, message] : sent<protocol::Forward>())
      hear(peer, protocol::Held{from(peer), message.microbatch, message.n, load(1.2, 0.3)});
  }
  for (const PeerId peer : {PeerId(4), PeerId(3)})
    hear(peer, protocol::Receipt{from(peer), protocol::kUnasked, load(6, 1.5, peer == PeerId(3))});
  EXPECT_TRUE(sent<protocol::Cancel>().empty());
}

TEST_F(SlowReplica, AHeadReturnsWhatItHasNotBegunAndKeepsItsPromise) {
  serve(0);
  for (int i = 0; i < 2; ++i) ends(kUsual);
  ends(5 * kUsual);
  wait(3 * kUsual);
  ASSERT_FALSE(sent<protocol::Report>().empty());
  const protocol::Report report = sent<protocol::Report>().back().second;
  EXPECT_EQ(report.returned.size(), kCount - 4);
  EXPECT_EQ(report.epoch, view_.epoch);
  // Views that do not know of it yet, and of other decisions: it begins nothing of that.
  ++view_.epoch.value;
  see();
  ends(5 * kUsual);
  EXPECT_FALSE(running_);
  // Dealt again, some of it to this head.
  ++view_.epoch.value;
  view_.dealt_again = view_.epoch;
  for (std::uint32_t m = 5; m < kCount; ++m) view_.head_owner[m] = kNoSession;
  see();
  ASSERT_TRUE(running_);
  EXPECT_EQ(running_->task.microbatch, MicrobatchId(4));
  wait(seconds(1));
  ASSERT_FALSE(sent<protocol::Report>().empty());
  EXPECT_EQ(sent<protocol::Report>().back().second.returned.size(), 0u);
}

TEST_F(SlowReplica, AHeadWithoutASiblingKeepsItsShare) {
  serve(0);
  std::erase_if(view_.live, [](const protocol::Member& m) { return m.peer == PeerId(2); });
  ++view_.epoch.value;
  see();
  for (int i = 0; i < 2; ++i) ends(kUsual);
  ends(5 * kUsual);
  wait(3 * kUsual);
  for (const auto& [peer, report] : sent<protocol::Report>()) EXPECT_EQ(report.returned.size(), 0u);
}

}  // namespace
}  // namespace isthmus::router
