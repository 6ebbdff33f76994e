// Those that join and those that give, wired to each other without a network: two members of a stage and a joiner.
#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <span>
#include <utility>

#include "base/digest.h"
#include "router/sibling_fetch.h"
#include "router/state_donor.h"
#include "router/whole.h"

namespace isthmus::router {
namespace {

constexpr std::uint64_t kStateBytes = 5 * protocol::kPieceBytes + 100;
constexpr PeerId kJoiner(3);

Bytes pattern(std::uint64_t bytes, std::uint8_t seed) {
  Bytes content(bytes);
  for (std::uint64_t i = 0; i < bytes; ++i)
    content[i] = static_cast<std::uint8_t>(seed + i / protocol::kPieceBytes + i % 251);
  return content;
}

protocol::Plan one_stage() {
  protocol::Plan plan;
  plan.stages.push_back({0, 1, 3, 1, kStateBytes / 8, kStateBytes});
  plan.total_width = 8;
  plan.steps = 100;
  plan.microbatches = 1;
  return plan;
}

WorkerContext context_of(std::uint32_t peer, SessionId session) {
  WorkerContext context{
      one_stage(), {PeerId(peer), StageId(0), ReplicaId(peer - 1), {}, seconds(2), 10e6}, {}, {}, session, {}};
  context.view.epoch = EpochId(3);
  context.view.step = StepId(5);
  for (std::uint32_t p = 1; p <= 2; ++p)
    context.view.live.push_back({PeerId(p), SessionId(10 + p), StageId(0), ReplicaId(p - 1), {}, {}});
  context.view.joining.push_back({kJoiner, SessionId(13), StageId(0), ReplicaId(2), {}, {}});
  return context;
}

class CatchingUp : public ::testing::Test {
 protected:
  struct Sibling {
    explicit Sibling(std::uint32_t peer) : context(context_of(peer, SessionId(10 + peer))), donor(context) {}
    WorkerContext context;
    StateDonor donor;
    Bytes state = pattern(kStateBytes, 1);
    std::uint64_t version = 4;
    std::vector<protocol::Piece> given;
  };

  // Moves every message to whom it is for, and time on, until nothing more happens or the joiner has something to do.
  void pump(int rounds = 200) {
    for (int round = 0; round < rounds && result_.empty(); ++round) {
      auto asked = std::exchange(joiner_.effects, {});
      for (auto& effect : asked) {
        if (auto* send = std::get_if<protocol::SendMessage>(&effect)) {
          const auto& fetch = std::get<protocol::Fetch>(send->message);
          if (Sibling* sibling = at(send->peer)) sibling->donor.received(fetch, kJoiner, sibling->version, now_);
        } else {
          result_.push_back(std::move(effect));
        }
      }
      Time due = kNever;
      for (auto& sibling : siblings_) {
        sibling.donor.tick(now_);
        for (auto& effect : std::exchange(sibling.context.effects, {})) {
          if (const auto* snapshot = std::get_if<protocol::RunSnapshot>(&effect))
            sibling.donor.snapshot_done({snapshot->version, share(Bytes(sibling.state)), digest_hex(sibling.state)},
                                        now_);
          if (auto* send = std::get_if<protocol::SendMessage>(&effect)) deliver(sibling, send->message);
        }
        for (auto& effect : std::exchange(sibling.context.effects, {}))
          if (auto* send = std::get_if<protocol::SendMessage>(&effect)) deliver(sibling, send->message);
        due = std::min(due, sibling.donor.next_due());
      }
      if (version_ + 1 < joiner_.view.step.value && result_.empty()) fetch_.pursue(version_, now_);
      if (joiner_.effects.empty() && result_.empty())
        now_ = std::max(now_, std::min(due == kNever ? fetch_.next_due() : due, now_ + seconds(60)));
    }
  }
  void deliver(Sibling& sibling, const protocol::Message& message) {
    if (const auto* chunk = std::get_if<protocol::Chunk>(&message)) {
      sibling.given.push_back(chunk->piece);
      fetch_.received(*chunk, sibling.context.identity.peer, version_, now_);
    }
    if (const auto* absent = std::get_if<protocol::Absent>(&message))
      fetch_.received(*absent, sibling.context.identity.peer, now_);
  }
  Sibling* at(PeerId peer) {
    const auto found =
        std::ranges::find_if(siblings_, [&](const Sibling& s) { return s.context.identity.peer == peer; });
    return found == siblings_.end() ? nullptr : &*found;
  }
  // A source is gone: it answers nothing and no view lists it.
  void lose(PeerId peer) {
    siblings_.remove_if([&](const Sibling& s) { return s.context.identity.peer == peer; });
    std::erase_if(joiner_.view.live, [&](const protocol::Member& m) { return m.peer == peer; });
  }
  template <class Effect>
  const Effect* result() const {
    for (const auto& effect : result_)
      if (const auto* e = std::get_if<Effect>(&effect)) return e;
    return nullptr;
  }

  Time now_ = seconds(100);
  WorkerContext joiner_ = context_of(3, SessionId(13));
  SiblingFetch fetch_{joiner_};
  std::list<Sibling> siblings_ = [] {
    std::list<Sibling> siblings;
    siblings.emplace_back(1);
    siblings.emplace_back(2);
    return siblings;
  }();
  std::uint64_t version_ = 0;
  std::vector<protocol::WorkerEffect> result_;
};

TEST_F(CatchingUp, ASnapshotComesFromAllSiblingsAtOnce) {
  fetch_.pursue(version_, now_);
  pump();
  ASSERT_NE(result<protocol::RunRestore>(), nullptr);
  EXPECT_EQ(result<protocol::RunRestore>()->version, 4u);
  EXPECT_TRUE(whole(result<protocol::RunRestore>()->pieces) == siblings_.front().state);
  for (const auto& sibling : siblings_) EXPECT_EQ(sibling.given.size(), 3u);  // no piece twice
}

TEST_F(CatchingUp, ASnapshotTakesNineTenthsOfAnUplinkThatNobodyElseUses) {
  lose(PeerId(2));
  const Time began = now_;
  fetch_.pursue(version_, now_);
  pump();
  ASSERT_NE(result<protocol::RunRestore>(), nullptr);
  EXPECT_NEAR(to_seconds(now_ - began), 5.0 * protocol::kPieceBytes * kFraming / (.9 * 10e6),
              .001);  // the last piece leaves then
}

// Whoever shares a home's downlink with others says how much of it he takes.
TEST(Fetching, TakesNoMoreOfTheDownlinkThanItMay) {
  WorkerContext joiner = context_of(3, SessionId(13));
  WorkerIdentity slow = joiner.identity;
  slow.fetched_per_second = 2. * protocol::kPieceBytes;
  WorkerContext context{joiner.plan, slow, joiner.view, {}, joiner.session, {}};
  SiblingFetch fetch(context);
  std::map<Duration, std::size_t> asked;
  for (Duration passed{}; passed <= seconds(3); passed += std::chrono::milliseconds(100)) {
    fetch.pursue(0, seconds(100) + passed);
    asked[passed] = context.effects.size();
  }
  EXPECT_EQ(asked[{}], 1u);
  EXPECT_EQ(asked[seconds(1)], 3u);
  EXPECT_EQ(asked[seconds(2)], 5u);
  EXPECT_EQ(asked[seconds(3)], 6u) << "that is all";
}

// It gives a piece now and then, for its uplink is narrow and others fetch as well.
TEST_F(CatchingUp, ASourceThatIsSlowIsNotTakenForASilentOne) {
  lose(PeerId(2));
  fetch_.pursue(version_, now_);
  const auto asked = std::exchange(joiner_.effects, {});
  ASSERT_EQ(asked.size(), 6u);
  for (std::uint32_t index = 0; index < 5; ++index) {
    now_ += seconds(7);
    EXPECT_TRUE(fetch_.received({SessionId(11),
                                 SessionId(13),
                                 0,
                                 {protocol::PieceKind::kSnapshot, 4, 0, index},
                                 "d",
                                 {},
                                 {share(Bytes(protocol::kPieceBytes)), nullptr}},
                                PeerId(1), version_, now_));
    fetch_.pursue(version_, now_);
    EXPECT_TRUE(joiner_.effects.empty()) << index;
  }
  now_ += seconds(10);
  fetch_.pursue(version_, now_);
  EXPECT_EQ(joiner_.effects.size(), 1u) << "now it is silent";
}

TEST_F(CatchingUp, WhatIsHereStaysWhenASourceGoes) {
  fetch_.pursue(version_, now_);
  auto asked = std::exchange(joiner_.effects, {});
  const auto from_two =
      std::ranges::count_if(asked, [](const auto& e) { return std::get<protocol::SendMessage>(e).peer == PeerId(2); });
  EXPECT_EQ(from_two, 3);
  lose(PeerId(2));  // with what it was asked for
  for (auto& effect : asked)
    if (std::get<protocol::SendMessage>(effect).peer == PeerId(1)) joiner_.effects.push_back(std::move(effect));
  pump();
  ASSERT_NE(result<protocol::RunRestore>(), nullptr);
  EXPECT_EQ(siblings_.front().given.size(), 6u);
}

TEST_F(CatchingUp, ASilentSourceIsReplacedByAnother) {
  at(PeerId(2))->version = 3;  // says nothing yet, for it is behind
  fetch_.pursue(version_, now_);
  pump();
  ASSERT_NE(result<protocol::RunRestore>(), nullptr);
  EXPECT_TRUE(at(PeerId(2))->given.empty());
}

// The only one that has the snapshot goes, and the other has said long ago that it has not got it: nobody will say
// anything more.
TEST_F(CatchingUp, FetchesANewerSnapshotWhenTheOnlySiblingThatHadItGoes) {
  at(PeerId(2))->version = 5;  // a commit ahead of the joiner's view
  fetch_.pursue(version_, now_);
  // Three were asked of each; what is missing in the end is what was refused.
  for (int round = 0; round < 100 && at(PeerId(1))->given.size() < 4; ++round) pump(1);
  ASSERT_EQ(at(PeerId(1))->given.size(), 4u);
  joiner_.view.step = StepId(6);
  lose(PeerId(1));
  pump();
  ASSERT_NE(result<protocol::RunRestore>(), nullptr);
  EXPECT_EQ(result<protocol::RunRestore>()->version, 5u);
  EXPECT_TRUE(whole(result<protocol::RunRestore>()->pieces) == siblings_.front().state);
  EXPECT_EQ(fetch_.news(), "snapshot 5, 6 of 6 pieces here: 0 of worker 1 (gone), 6 of worker 2")
      << "who was lost is said";
}

// A snapshot may take as long as many steps; fetched again and again it would never be new enough.
TEST_F(CatchingUp, FollowsASnapshotHoweverManyStepsItTook) {
  fetch_.pursue(version_, now_);
  pump();
  ASSERT_NE(result<protocol::RunRestore>(), nullptr);
  version_ = result<protocol::RunRestore>()->version;
  fetch_.restored(true);
  result_.clear();
  // More steps than anybody is kept for who is only away for a moment.
  constexpr std::uint64_t kNow = 1000;
  joiner_.view.step = StepId(kNow + 1);
  const SharedBytes total = share(Bytes(kStateBytes / 8 * 8, 1));
  for (auto& sibling : siblings_) {
    sibling.version = kNow;
    for (std::uint64_t step = 5; step <= kNow; ++step) sibling.donor.applied(protocol::Commit{StepId(step)}, {total});
  }
  fetch_.pursue(version_, now_);
  ASSERT_FALSE(joiner_.effects.empty());
  const auto& first = std::get<protocol::SendMessage>(joiner_.effects.front());
  EXPECT_EQ(std::get<protocol::Fetch>(first.message).piece, (protocol::Piece{protocol::PieceKind::kUpdate, 5, 0, 0}));
  pump();
  ASSERT_NE(result<protocol::RunFollow>(), nullptr);
  EXPECT_EQ(result<protocol::RunFollow>()->commit.step, StepId(5));
  version_ = 4;
  result_.clear();
  // One that has been away for as long is better off with a snapshot.
  joiner_.effects.clear();
  fetch_.stop();
  fetch_.pursue(version_, now_);
  const auto& anew = std::get<protocol::SendMessage>(joiner_.effects.front());
  EXPECT_EQ(std::get<protocol::Fetch>(anew.message).piece,
            (protocol::Piece{protocol::PieceKind::kSnapshot, kNow, 0, 0}));
}

TEST_F(CatchingUp, SaysWhoGaveItAndWhoIsGone) {
  fetch_.pursue(version_, now_);
  EXPECT_EQ(fetch_.news(), "");
  pump(1);
  EXPECT_EQ(fetch_.news(), "snapshot 4, 2 of 6 pieces here: 1 of worker 1, 1 of worker 2");
  lose(PeerId(2));
  fetch_.pursue(version_, now_);
  EXPECT_EQ(fetch_.news(), "snapshot 4, 2 of 6 pieces here: 1 of worker 1, 1 of worker 2 (gone)");
  pump();
  ASSERT_NE(result<protocol::RunRestore>(), nullptr);
  EXPECT_EQ(fetch_.news(), "snapshot 4, 6 of 6 pieces here: 5 of worker 1, 1 of worker 2 (gone)");
}

TEST_F(CatchingUp, PiecesOfDifferentStatesAreNeverMixed) {
  at(PeerId(2))->state = pattern(kStateBytes, 77);
  fetch_.pursue(version_, now_);
  for (int i = 0; i < 5; ++i) {
    pump();
    if (const auto* restore = result<protocol::RunRestore>()) {
      const Bytes state = whole(restore->pieces);
      EXPECT_TRUE(state == siblings_.front().state || state == siblings_.back().state);
    }
  }
  lose(PeerId(2));
  if (!result<protocol::RunRestore>()) pump();
  ASSERT_NE(result<protocol::RunRestore>(), nullptr);
}

// Found out where it is put together, on the device's thread.
TEST_F(CatchingUp, ASnapshotThatWasRefusedIsFetchedAgain) {
  fetch_.pursue(version_, now_);
  pump();
  ASSERT_NE(result<protocol::RunRestore>(), nullptr);
  EXPECT_EQ(result<protocol::RunRestore>()->digest, digest_hex(siblings_.front().state));
  EXPECT_TRUE(fetch_.restoring());
  fetch_.restored(false);
  result_.clear();
  fetch_.pursue(version_, now_);
  pump();
  ASSERT_NE(result<protocol::RunRestore>(), nullptr);
}

TEST_F(CatchingUp, AMissedCommitComesAsTheSumOfItsGradients) {
  version_ = 3;
  const protocol::Commit commit{StepId(4), 0, EpochId(2), .5, true};
  for (auto& sibling : siblings_)
    sibling.donor.applied(commit,
                          {share(Bytes(sibling.state.begin(), sibling.state.begin() + 1000)),
                           share(Bytes(sibling.state.begin() + 1000, sibling.state.begin() + kStateBytes / 8 * 8))});
  fetch_.pursue(version_, now_);
  pump();
  ASSERT_NE(result<protocol::RunFollow>(), nullptr);
  EXPECT_EQ(result<protocol::RunFollow>()->commit, commit);
  EXPECT_TRUE(std::ranges::equal(whole(result<protocol::RunFollow>()->pieces),
                                 std::span(siblings_.front().state).first(kStateBytes / 8 * 8)));
  EXPECT_EQ(version_, 4u);
}

TEST_F(CatchingUp, ACommitThatNobodyKeepsIsReplacedByASnapshot) {
  version_ = 3;
  fetch_.pursue(version_, now_);
  pump();
  ASSERT_NE(result<protocol::RunRestore>(), nullptr);
  EXPECT_EQ(result<protocol::RunRestore>()->version, 4u);
}

TEST_F(CatchingUp, TakesOnlyWhatItAskedForFromWhomItAsked) {
  fetch_.pursue(version_, now_);
  const auto& send = std::get<protocol::SendMessage>(joiner_.effects.front());
  const protocol::Piece piece = std::get<protocol::Fetch>(send.message).piece;
  const PeerId asked = send.peer, other = asked == PeerId(1) ? PeerId(2) : PeerId(1);
  const Bytes content = pattern(protocol::kPieceBytes, 1);
  const auto chunk = [&](protocol::Piece p, std::uint64_t bytes) {
    return protocol::Chunk{
        SessionId(11),
        SessionId(13),
        0,
        p,
        "d",
        {},
        {share(Bytes(content.begin(), content.begin() + static_cast<std::ptrdiff_t>(bytes))), nullptr}};
  };
  EXPECT_FALSE(fetch_.received(chunk(piece, protocol::kPieceBytes), other, version_, now_));
  EXPECT_FALSE(fetch_.received(chunk(piece, protocol::kPieceBytes - 1), asked, version_, now_));
  EXPECT_FALSE(
      fetch_.received(chunk({piece.kind, piece.version, 0, 99}, protocol::kPieceBytes), asked, version_, now_));
  EXPECT_FALSE(fetch_.received(chunk({piece.kind, piece.version, 0, UINT32_MAX}, 0), asked, version_, now_));
  EXPECT_FALSE(
      fetch_.received(chunk({protocol::PieceKind::kUpdate, piece.version, 0, piece.index}, protocol::kPieceBytes),
                      asked, version_, now_));
  EXPECT_TRUE(fetch_.received(chunk(piece, protocol::kPieceBytes), asked, version_, now_));
  EXPECT_FALSE(fetch_.received(chunk(piece, protocol::kPieceBytes), asked, version_, now_)) << "a second time";
}

// Two snapshots at most are kept. Whoever has got his makes room for the third joiner.
TEST_F(CatchingUp, KeepsASnapshotOnlyUntilItsJoinerWantsSomethingElse) {
  Sibling& giver = siblings_.front();
  for (std::uint32_t peer : {4u, 5u})
    giver.context.view.joining.push_back({PeerId(peer), SessionId(10 + peer), StageId(0), ReplicaId(peer - 1), {}, {}});
  const auto takes = [&](std::uint32_t peer, protocol::Piece piece, std::uint64_t version) {
    giver.donor.received({SessionId(10 + peer), SessionId(11), 0, piece}, PeerId(peer), version, now_);
    const auto effects = std::exchange(giver.context.effects, {});
    return std::ranges::any_of(
        effects, [](const auto& effect) { return std::holds_alternative<protocol::RunSnapshot>(effect); });
  };
  EXPECT_TRUE(takes(3, {protocol::PieceKind::kSnapshot, 4, 0, 0}, 4));
  EXPECT_TRUE(takes(4, {protocol::PieceKind::kSnapshot, 5, 0, 0}, 5));
  EXPECT_FALSE(takes(5, {protocol::PieceKind::kSnapshot, 6, 0, 0}, 6));
  EXPECT_FALSE(takes(3, {protocol::PieceKind::kUpdate, 5, 0, 0}, 6));
  EXPECT_TRUE(takes(5, {protocol::PieceKind::kSnapshot, 6, 0, 0}, 6));
  // One that has vanished wants nothing.
  EXPECT_FALSE(takes(3, {protocol::PieceKind::kSnapshot, 7, 0, 0}, 7));
  std::erase_if(giver.context.view.joining, [](const protocol::Member& m) { return m.peer == PeerId(4); });
  EXPECT_TRUE(takes(3, {protocol::PieceKind::kSnapshot, 7, 0, 0}, 7));
}

// The sum of the step that runs while it asks is the first that it needs.
TEST_F(CatchingUp, SumsAreKeptForWhoeverIsAboutToAsk) {
  Sibling& giver = siblings_.front();
  EXPECT_TRUE(giver.donor.is_followed(now_));
  giver.context.view.joining.front().stage = StageId(1);
  EXPECT_FALSE(giver.donor.is_followed(now_));
  giver.context.view.joining.clear();
  EXPECT_FALSE(giver.donor.is_followed(now_));
}

TEST_F(CatchingUp, GivesWeightsToNobodyButASibling) {
  Sibling& giver = siblings_.front();
  const auto asks = [&](SessionId from, PeerId peer, protocol::Piece piece) {
    giver.donor.received({from, SessionId(11), 0, piece}, peer, 4, now_);
    return std::exchange(giver.context.effects, {}).size();
  };
  const protocol::Piece weights{protocol::PieceKind::kSnapshot, 4, 0, 0};
  EXPECT_EQ(asks(SessionId(99), kJoiner, weights), 0u);    // nobody's session
  EXPECT_EQ(asks(SessionId(13), PeerId(9), weights), 0u);  // another's session
  EXPECT_EQ(asks(SessionId(13), kJoiner, {protocol::PieceKind::kSnapshot, 4, 0, 6}), 0u);
  EXPECT_EQ(asks(SessionId(13), kJoiner, {protocol::PieceKind::kSnapshot, 9, 0, 0}), 0u);  // not yet
  giver.context.view.joining.front().stage = StageId(1);
  EXPECT_EQ(asks(SessionId(13), kJoiner, weights), 0u);
  giver.context.view.joining.front().stage = StageId(0);
  EXPECT_EQ(asks(SessionId(13), kJoiner, weights), 1u);  // the snapshot is being taken
}

}  // namespace
}  // namespace isthmus::router
