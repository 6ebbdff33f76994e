// Those that join replicas which step on their own: what these agreed on is all there is to fetch, from one donor here.
#include <gtest/gtest.h>

#include <utility>

#include "base/digest.h"
#include "router/sibling_fetch.h"
#include "router/state_donor.h"
#include "router/whole.h"

namespace isthmus::router {
namespace {

constexpr std::uint64_t kLocalStateBytes = 9 * protocol::kPieceBytes + 5;
constexpr std::uint64_t kUpdateBytes = protocol::kPieceBytes / 2 + 3;

// Syncs are the commits of steps 5, 9, 13 …
protocol::Plan plan_of(std::uint64_t state_bytes) {
  protocol::Plan plan;
  protocol::StagePlan& stage = plan.stages.emplace_back();
  stage.replicas = 3;
  stage.local = true;
  stage.state_bytes = state_bytes;
  stage.update_bytes = {kUpdateBytes};
  stage.last_update_bytes = {kUpdateBytes};
  plan.steps = 100;
  plan.sync_every = 4;
  plan.sync_is_sparse = true;
  return plan;
}

WorkerContext context_of(std::uint32_t peer, std::uint64_t state_bytes) {
  WorkerContext context{plan_of(state_bytes),
                        {PeerId(peer), StageId(0), ReplicaId(peer - 1), {}, seconds(2), 10e6},
                        {},
                        {},
                        SessionId(10 + peer),
                        {}};
  context.view.epoch = EpochId(3);
  context.view.step = StepId(12);  // version 11 is everybody's, the last sync made version 9
  context.view.live.push_back({PeerId(1), SessionId(11), StageId(0), ReplicaId(0), {}, {}});
  context.view.joining.push_back({PeerId(3), SessionId(13), StageId(0), ReplicaId(2), {}, {}});
  return context;
}

class JoiningLocally : public ::testing::Test {
 protected:
  void applied(std::uint64_t step, std::size_t updates) {
    std::vector<SharedBytes> outcome(updates, share(Bytes(kUpdateBytes, static_cast<std::uint8_t>(step))));
    donor_.applied(protocol::Commit{StepId(step)}, std::move(outcome));
  }
  // Until nothing happens any more; what the joiner's device is to do.
  std::vector<protocol::WorkerEffect> pump() {
    std::vector<protocol::WorkerEffect> jobs;
    fetch_.pursue(version_, now_);
    for (int turn = 0; turn < 300 && jobs.empty(); ++turn) {
      for (auto& effect : std::exchange(joiner_.effects, {})) {
        if (auto* send = std::get_if<protocol::SendMessage>(&effect)) {
          asked_.push_back(std::get<protocol::Fetch>(send->message).piece);
          donor_.received(std::get<protocol::Fetch>(send->message), PeerId(3), 11, now_);
        } else {
          jobs.push_back(std::move(effect));
        }
      }
      for (auto& effect : std::exchange(giver_.effects, {})) {
        if (auto* snapshot = std::get_if<protocol::RunSnapshot>(&effect))
          donor_.snapshot_done({snapshot->version, state_, digest_hex(*state_)}, now_);
        if (auto* send = std::get_if<protocol::SendMessage>(&effect)) {
          if (auto* chunk = std::get_if<protocol::Chunk>(&send->message))
            fetch_.received(*chunk, PeerId(1), version_, now_);
          if (auto* absent = std::get_if<protocol::Absent>(&send->message)) fetch_.received(*absent, PeerId(1), now_);
        }
      }
      now_ += seconds(1);
      donor_.tick(now_);
      if (jobs.empty() && joiner_.plan.last_sync(version_) != 9) fetch_.pursue(version_, now_);
    }
    return jobs;
  }

  Time now_ = seconds(100);
  std::uint64_t version_ = 2;
  SharedBytes state_ = share(Bytes(kLocalStateBytes, 7));
  WorkerContext giver_ = context_of(1, kLocalStateBytes), joiner_ = context_of(3, kLocalStateBytes);
  StateDonor donor_{giver_};
  SiblingFetch fetch_{joiner_};
  std::vector<protocol::Piece> asked_;
};

TEST_F(JoiningLocally, RepeatsTheSyncsItMissedWhichAreFewerBytes) {
  applied(5, 2);
  applied(9, 3);
  auto jobs = pump();
  ASSERT_EQ(jobs.size(), 1u);
  const auto& first = std::get<protocol::RunFollow>(jobs[0]);
  EXPECT_TRUE(first.sync);
  EXPECT_EQ(first.commit.step, StepId(5));
  EXPECT_EQ(whole(first.pieces), Bytes(2 * kUpdateBytes, 5));  // as many as there were then
  fetch_.restored(true);
  version_ = 5;
  jobs = pump();
  ASSERT_EQ(jobs.size(), 1u);
  EXPECT_EQ(whole(std::get<protocol::RunFollow>(jobs[0]).pieces), Bytes(3 * kUpdateBytes, 9));
  for (const auto& piece : asked_) EXPECT_EQ(piece.kind, protocol::PieceKind::kUpdate);
}

// A sibling may have kept anything; then what is fetched next is what they agreed on, whose digest they share.
TEST_F(JoiningLocally, AfterASyncThatIsNoneItFetchesTheWeights) {
  applied(5, 2);
  ASSERT_TRUE(std::holds_alternative<protocol::RunFollow>(pump().at(0)));
  EXPECT_EQ(version_, 2u);  // until the device has taken it
  fetch_.restored(false);
  EXPECT_EQ(std::get<protocol::RunRestore>(pump().at(0)).version, 9u);
}

TEST_F(JoiningLocally, FetchesWhatTheyAgreedOnLastIfNobodyKeepsTheSyncs) {
  const auto jobs = pump();
  ASSERT_EQ(jobs.size(), 1u);
  const auto& restore = std::get<protocol::RunRestore>(jobs[0]);
  EXPECT_EQ(restore.version, 9u);  // not 11: weights in between are each replica's own
  EXPECT_EQ(whole(restore.pieces), Bytes(state_->begin(), state_->end()));
}

TEST_F(JoiningLocally, FetchesItAtOnceWhereUpdatesWouldBeMore) {
  WorkerContext small = context_of(3, kUpdateBytes);
  SiblingFetch fetch(small);
  fetch.pursue(2, now_);
  ASSERT_FALSE(small.effects.empty());
  EXPECT_EQ(std::get<protocol::Fetch>(std::get<protocol::SendMessage>(small.effects[0]).message).piece,
            (protocol::Piece{protocol::PieceKind::kSnapshot, 9, 0, 0}));
}

TEST_F(JoiningLocally, BelievesNoUpdateLargerThanAStageCanHave) {
  fetch_.pursue(version_, now_);
  const auto& send = std::get<protocol::SendMessage>(joiner_.effects.front());
  const protocol::Piece piece = std::get<protocol::Fetch>(send.message).piece;
  const auto chunk = [&](std::uint64_t whole) {
    return protocol::Chunk{SessionId(10 + send.peer.value),
                           SessionId(13),
                           0,
                           piece,
                           "",
                           protocol::Commit{StepId(5)},
                           {share(Bytes(std::min(whole, protocol::kPieceBytes), 1)), nullptr},
                           whole};
  };
  EXPECT_FALSE(fetch_.received(chunk(0), send.peer, version_, now_));
  EXPECT_FALSE(fetch_.received(chunk(UINT64_MAX), send.peer, version_, now_));
  EXPECT_TRUE(fetch_.received(chunk(kUpdateBytes), send.peer, version_, now_));
}

}  // namespace
}  // namespace isthmus::router
