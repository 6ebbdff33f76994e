// The replicas of a stage agreeing at a sync, wired to each other without a network: their updates are numbers, and
// what they make of them is a weighted sum.
#include "router/outer_exchange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <list>
#include <set>
#include <utility>

#include "base/digest.h"
#include "base/little_endian.h"

namespace isthmus::router {
namespace {

constexpr std::uint64_t kVersion = 30;
constexpr std::uint64_t kSliceBytes = protocol::kPieceBytes + 1000;  // two pieces

protocol::Plan plan_of(std::uint32_t replicas, bool owners) {
  protocol::Plan plan;
  protocol::StagePlan& stage = plan.stages.emplace_back();
  stage.replicas = replicas;
  stage.local = true;
  stage.update_bytes.assign(owners ? 5 : 1, 4 + kSliceBytes);
  plan.steps = 100;
  plan.sync_every = kVersion;
  plan.sync_is_sparse = !owners;
  return plan;
}

// An update worth `weight` whose numbers all are `number`.
SharedBytes update(std::uint32_t weight, std::uint8_t number) {
  Bytes bytes;
  append_le(bytes, weight);
  if (weight > 0) bytes.resize(4 + kSliceBytes, number);
  return share(std::move(bytes));
}

// What there is to agree on: of every member's update, in their order, weight and first number.
SharedBytes agreement(const std::vector<SharedBytes>& updates) {
  std::uint64_t sum = 0;
  for (const auto& u : updates) {
    ByteView in = *u;
    const auto weight = *take_le<std::uint32_t>(in);
    sum = sum * 31 + (weight == 0 ? 0 : weight * in.front());
  }
  Bytes bytes(kSliceBytes, 0);
  std::memcpy(bytes.data(), &sum, sizeof sum);
  return share(std::move(bytes));
}

class Syncing : public ::testing::Test {
 protected:
  struct Replica {
    Replica(const protocol::Plan& plan, std::uint32_t peer)
        : context{
              plan, {PeerId(peer), StageId(0), ReplicaId(peer - 1), {}, seconds(2), 10e6}, {}, {}, SessionId(10 + peer),
              {}} {}
    WorkerContext context;
    OuterExchange exchange{context};
    std::vector<SharedBytes> holds;  // by slice: what it agreed on
    std::uint32_t weight = 8;
    bool lies = false;  // about what it made of the slices it owns
    bool silent = false;
    std::uint64_t sent = 0;
  };

  void begin(std::uint32_t count, bool owners) {
    plan_ = plan_of(count, owners);
    for (std::uint32_t peer = 1; peer <= count; ++peer)
      replicas_.emplace_back(plan_, peer).holds.resize(plan_.stages[0].update_bytes.size());
    view_.epoch = EpochId(3);
    view_.step = StepId(kVersion + 1);
    for (std::uint32_t peer = 1; peer <= count; ++peer)
      view_.live.push_back({PeerId(peer), SessionId(10 + peer), StageId(0), ReplicaId(peer - 1), {}, {}});
    show(view_);
  }

  void show(const protocol::View& view) {
    view_ = view;
    for (auto& replica : replicas_) replica.context.view = view;
  }
  void expel(std::uint32_t peer) {
    protocol::View view = view_;
    std::erase_if(view.live, [&](const protocol::Member& m) { return m.peer == PeerId(peer); });
    view.epoch = EpochId(view.epoch.value + 1);
    replica(peer).silent = true;
    show(view);
  }

  // Moves every message, does every job, and moves time on, until nothing happens any more.
  void pump() {
    for (int turn = 0; turn < 400; ++turn) {
      bool busy = false;
      for (auto& replica : replicas_) {
        if (replica.silent) continue;
        replica.exchange.pursue(kVersion, now_);
        for (auto& effect : std::exchange(replica.context.effects, {})) {
          busy = true;
          carry_out(replica, effect);
        }
      }
      if (busy) continue;
      const bool done =
          std::ranges::all_of(replicas_, [](const Replica& r) { return r.silent || r.exchange.complete(); });
      if (done) return;
      now_ += seconds(5);
    }
  }

  void carry_out(Replica& replica, protocol::WorkerEffect& effect) {
    if (auto* send = std::get_if<protocol::SendMessage>(&effect)) {
      if (lost_ && lost_(replica, *send)) return;
      deliver(replica, *send);
    } else if (auto* run = std::get_if<protocol::RunUpdate>(&effect)) {
      std::vector<SharedBytes> updates(
          plan_.stages[0].update_bytes.size(),
          update(replica.weight, static_cast<std::uint8_t>(replica.context.identity.peer.value)));
      replica.exchange.updated({run->version, std::move(updates)}, now_);
    } else if (auto* agree = std::get_if<protocol::RunAgree>(&effect)) {
      replica.holds[agree->slice] = agreement(agree->updates);
      SharedBytes told = replica.lies ? update(1, 77) : replica.holds[agree->slice];
      if (replica.lies) told = share(Bytes(told->begin() + 4, told->end()));
      replica.exchange.agreed({agree->version, agree->slice, agree->number, told, digest_hex(*told),
                               std::vector<std::string>(agree->updates.size()), ""},
                              now_);
    } else if (auto* take = std::get_if<protocol::RunTake>(&effect)) {
      replica.holds[take->slice] = take->agreement;
      replica.exchange.agreed(
          {take->version, take->slice, take->number, take->agreement, digest_hex(*take->agreement), {}, ""}, now_);
    }
  }
  void deliver(Replica& from, const protocol::SendMessage& send) {
    Replica& to = replica(send.peer.value);
    if (to.silent || from.silent) return;
    if (const auto* fetch = std::get_if<protocol::Fetch>(&send.message))
      to.exchange.received(*fetch, from.context.identity.peer, kVersion, now_);
    if (const auto* chunk = std::get_if<protocol::Chunk>(&send.message)) {
      from.sent += chunk->tensor.bytes();
      to.exchange.received(*chunk, from.context.identity.peer, now_);
    }
  }
  Replica& replica(std::uint32_t peer) { return *std::next(replicas_.begin(), peer - 1); }

  // Of all that are left, in their order.
  SharedBytes expected() {
    std::vector<SharedBytes> updates;
    for (const auto& member : view_.live)
      updates.push_back(update(replica(member.peer.value).weight, static_cast<std::uint8_t>(member.peer.value)));
    return agreement(updates);
  }
  void expect_agreement() {
    for (const auto& r : replicas_) {
      if (r.silent || r.lies) continue;
      EXPECT_TRUE(r.exchange.complete()) << "replica " << r.context.identity.peer.value << " waits for "
                                         << r.exchange.waiting_for();
      for (std::size_t slice = 0; slice < r.holds.size(); ++slice) {
        ASSERT_TRUE(r.holds[slice]);
        EXPECT_TRUE(r.holds[slice] == expected()) << "slice " << slice;
      }
    }
  }

  protocol::Plan plan_;
  Time now_ = seconds(100);
  protocol::View view_;
  std::list<Replica> replicas_;
  std::function<bool(const Replica&, const protocol::SendMessage&)> lost_;
};

TEST_F(Syncing, EverybodyMakesTheSameOfTheSameUpdates) {
  for (const std::uint32_t count : {1u, 2u, 3u, 4u, 7u})
    for (const bool owners : {false, true}) {
      replicas_.clear();
      view_ = {};
      begin(count, owners);
      replica(1).weight = 3;
      pump();
      expect_agreement();
    }
}

// What a sync costs: everybody's update to everybody, or to the two owners of each slice and from one of them to the
// rest.
TEST_F(Syncing, SendsNothingTwice) {
  begin(4, false);
  pump();
  for (const auto& r : replicas_) EXPECT_EQ(r.sent, 3 * (4 + kSliceBytes));
  replicas_.clear();
  view_ = {};
  begin(4, true);
  pump();
  std::uint64_t all = 0;
  for (const auto& r : replicas_) all += r.sent;
  // Of 5 slices each: 3 updates to either owner, the agreement to the two others.
  EXPECT_EQ(all, 5 * (2 * 3 * (4 + kSliceBytes) + 2 * kSliceBytes));
}

TEST_F(Syncing, AnUpdateThatDoesNotCountIsFourBytes) {
  begin(3, false);
  replica(2).weight = 0;
  pump();
  expect_agreement();
  EXPECT_EQ(replica(2).sent, 2 * 4u);
}

TEST_F(Syncing, OneOwnerMayVanishOnceItsUpdateWasTold) {
  begin(4, true);
  // It tells its update, but nothing of what it made of the others'.
  lost_ = [](const Replica& from, const protocol::SendMessage& send) {
    const auto* chunk = std::get_if<protocol::Chunk>(&send.message);
    return from.context.identity.peer == PeerId(2) && chunk && chunk->piece.kind != protocol::PieceKind::kOwnUpdate;
  };
  protocol::View view = view_;
  view.suspected = {SessionId(12)};
  show(view);
  pump();
  expect_agreement();
}

TEST_F(Syncing, WhoIsExpelledCountsForNothing) {
  for (const bool owners : {false, true}) {
    replicas_.clear();
    view_ = {};
    begin(4, owners);
    replica(3).silent = true;
    pump();
    EXPECT_FALSE(replica(1).exchange.complete());
    expel(3);
    pump();
    expect_agreement();
  }
}

TEST_F(Syncing, ALiarAmongTheOwnersIsNamedAndNotBelieved) {
  begin(4, true);
  replica(2).lies = true;
  pump();
  expect_agreement();
  std::size_t accusers = 0;
  for (const auto& r : replicas_)
    for (const auto& offence : r.exchange.offences()) {
      if (r.lies) continue;
      EXPECT_EQ(offence.session, SessionId(12));
      EXPECT_EQ(offence.version, kVersion);
      ++accusers;
    }
  EXPECT_EQ(accusers, 3u);
}

TEST_F(Syncing, WhatWasLostIsAskedForAgain) {
  begin(3, true);
  std::uint64_t n = 0;
  lost_ = [&](const Replica&, const protocol::SendMessage&) { return ++n % 5 == 0; };
  pump();
  expect_agreement();
}

TEST_F(Syncing, RefusesWhatNobodyAskedForAndWhatHasNotItsSize) {
  begin(2, false);
  Replica& own = replica(1);
  own.exchange.pursue(kVersion, now_);
  own.context.effects.clear();
  const protocol::Piece first{protocol::PieceKind::kOwnUpdate, kVersion, 0, 0, 0};
  const auto chunk = [&](protocol::Piece piece, std::size_t bytes) {
    return protocol::Chunk{SessionId(12), SessionId(11), 0, piece, "", {}, {share(Bytes(bytes, 1)), nullptr}, 0};
  };
  const auto takes = [&](const protocol::Chunk& c, PeerId from) { return own.exchange.received(c, from, now_); };
  EXPECT_FALSE(takes(chunk(first, protocol::kPieceBytes - 1), PeerId(2)));
  EXPECT_FALSE(takes(chunk(first, 5), PeerId(2)));
  EXPECT_FALSE(takes(chunk(first, protocol::kPieceBytes), PeerId(3)));  // asked of another
  EXPECT_FALSE(
      takes(chunk({protocol::PieceKind::kOwnUpdate, kVersion, 0, 1, 0}, 1004), PeerId(2)));  // not asked for yet
  EXPECT_FALSE(takes(chunk({protocol::PieceKind::kOwnUpdate, kVersion + 1, 0, 0, 0}, protocol::kPieceBytes),
                     PeerId(2)));  // of another sync
  EXPECT_FALSE(takes(chunk({protocol::PieceKind::kOwnUpdate, kVersion, 0, 0, 1}, protocol::kPieceBytes),
                     PeerId(2)));  // no such slice
  EXPECT_FALSE(takes(chunk({protocol::PieceKind::kAgreement, kVersion, 0, 0, 0}, protocol::kPieceBytes), PeerId(2)));
  EXPECT_TRUE(takes(chunk(first, protocol::kPieceBytes), PeerId(2)));
  EXPECT_FALSE(takes(chunk(first, protocol::kPieceBytes), PeerId(2)));  // twice
  // And tells nobody but siblings of this session, of slices there are.
  const auto fetch = [&](SessionId from, SessionId to, PeerId peer, std::uint32_t slice) {
    return own.exchange.received(protocol::Fetch{from, to, 0, {protocol::PieceKind::kOwnUpdate, kVersion, 0, 0, slice}},
                                 peer, kVersion, now_);
  };
  EXPECT_FALSE(fetch(SessionId(12), SessionId(11), PeerId(3), 0));
  EXPECT_FALSE(fetch(SessionId(13), SessionId(11), PeerId(3), 0));
  EXPECT_FALSE(fetch(SessionId(12), SessionId(99), PeerId(2), 0));
  EXPECT_FALSE(fetch(SessionId(12), SessionId(11), PeerId(2), 1));
  EXPECT_TRUE(fetch(SessionId(12), SessionId(11), PeerId(2), 0));
}

TEST_F(Syncing, ASiblingThatAloneIsWaitedForIsAsGoodAsCutOff) {
  begin(3, false);
  replica(3).silent = true;
  protocol::View view = view_;
  view.preparing = true;
  show(view);
  for (int i = 0; i < 100; ++i) {
    for (std::uint32_t peer : {1u, 2u}) {
      replica(peer).exchange.pursue(kVersion, now_);
      for (auto& effect : std::exchange(replica(peer).context.effects, {})) carry_out(replica(peer), effect);
    }
  }
  EXPECT_TRUE(replica(1).exchange.stalled(now_ + seconds(29)).empty());
  EXPECT_EQ(replica(1).exchange.stalled(now_ + seconds(31)), std::vector<SessionId>{SessionId(13)});
}

}  // namespace
}  // namespace isthmus::router
