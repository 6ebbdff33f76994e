#include "relay/switchboard.h"

#include <gtest/gtest.h>

namespace isthmus::relay {
namespace {

constexpr std::uint64_t kRun = 7;

Hello registers(std::uint32_t peer, std::uint64_t run = kRun) { return {Kind::kRegister, 0, run, PeerId(peer)}; }
Hello calls(std::uint32_t from, std::uint32_t to, std::uint64_t run = kRun) {
  return {Kind::kCall, 1, run, PeerId(from), PeerId(to)};
}
Hello accepts(std::uint32_t peer, std::uint64_t call, std::uint64_t run = kRun) {
  return {Kind::kAccept, 1, run, PeerId(peer), {}, call};
}

template <class T>
const T* only(const Switchboard::Effects& effects) {
  return effects.size() == 1 ? std::get_if<T>(&effects.front()) : nullptr;
}
Verdict verdict(const Switchboard::Effects& effects) {
  const auto* say = only<Switchboard::Say>(effects);
  return say ? say->verdict : static_cast<Verdict>(255);
}

TEST(Switchboard, JoinsACallerToWhoeverHasRegistered) {
  Switchboard board({});
  EXPECT_EQ(verdict(board.hello(1, registers(5), {})), Verdict::kWelcome);
  const auto rung = board.hello(2, calls(6, 5), {});
  const auto* tell = only<Switchboard::Tell>(rung);
  ASSERT_TRUE(tell);
  EXPECT_EQ(tell->stream, 1u);
  EXPECT_EQ(tell->ring.from, PeerId(6));
  EXPECT_EQ(tell->ring.lane, 1);
  const auto joined = board.hello(3, accepts(5, tell->ring.call), {});
  const auto* join = only<Switchboard::Join>(joined);
  ASSERT_TRUE(join);
  EXPECT_EQ(join->caller, 2u);
  EXPECT_EQ(join->callee, 3u);
  EXPECT_EQ(join->account, Switchboard::Peer(kRun, PeerId(6)));
  // A call is joined once.
  EXPECT_EQ(verdict(board.hello(4, accepts(5, tell->ring.call), {})), Verdict::kGone);
}

TEST(Switchboard, KnowsNobodyOfAnotherRun) {
  Switchboard board({});
  board.hello(1, registers(5), {});
  EXPECT_EQ(verdict(board.hello(2, calls(6, 5, kRun + 1), {})), Verdict::kAbsent);
  const auto rung = board.hello(3, calls(6, 5), {});
  EXPECT_EQ(verdict(board.hello(4, accepts(5, only<Switchboard::Tell>(rung)->ring.call, kRun + 1), {})),
            Verdict::kGone);
}

TEST(Switchboard, LetsNobodyAcceptWhatIsForAnother) {
  Switchboard board({});
  board.hello(1, registers(5), {});
  const auto rung = board.hello(2, calls(6, 5), {});
  EXPECT_EQ(verdict(board.hello(3, accepts(8, only<Switchboard::Tell>(rung)->ring.call), {})), Verdict::kGone);
}

TEST(Switchboard, ANewRegistrationTakesThePlaceOfTheOld) {
  Switchboard board({});
  board.hello(1, registers(5), {});
  const auto effects = board.hello(2, registers(5), {});
  ASSERT_EQ(effects.size(), 2u);
  EXPECT_EQ(std::get<Switchboard::HangUp>(effects[0]).stream, 1u);
  board.closed(1);  // must not take the new one along
  EXPECT_EQ(only<Switchboard::Tell>(board.hello(3, calls(6, 5), {}))->stream, 2u);
  board.closed(2);
  EXPECT_EQ(verdict(board.hello(4, calls(6, 5), {})), Verdict::kAbsent);
}

TEST(Switchboard, GivesUpACallThatNobodyAccepts) {
  Switchboard board({});
  board.hello(1, registers(5), {});
  const auto rung = board.hello(2, calls(6, 5), seconds(1));
  EXPECT_EQ(board.next_due(), seconds(11));
  EXPECT_TRUE(board.tick(seconds(10.9)).empty());
  EXPECT_EQ(verdict(board.tick(seconds(11))), Verdict::kAbsent);
  EXPECT_EQ(board.next_due(), kNever);
  EXPECT_EQ(verdict(board.hello(3, accepts(5, only<Switchboard::Tell>(rung)->ring.call), seconds(11))), Verdict::kGone);
}

TEST(Switchboard, ForgetsACallerThatHungUp) {
  Switchboard board({});
  board.hello(1, registers(5), {});
  const auto rung = board.hello(2, calls(6, 5), {});
  board.closed(2);
  EXPECT_EQ(verdict(board.hello(3, accepts(5, only<Switchboard::Tell>(rung)->ring.call), {})), Verdict::kGone);
}

// Every call makes the other dial the relay.
TEST(Switchboard, LetsNobodyRingAnotherWithoutEnd) {
  Switchboard board({});
  board.hello(1, registers(5), {});
  board.hello(2, registers(7), {});
  Switchboard::Stream stream = 10;
  int rung = 0;
  for (int i = 0; i < 100; ++i) {
    rung += only<Switchboard::Tell>(board.hello(++stream, calls(6, 5), {})) != nullptr;
    board.closed(stream);
  }
  EXPECT_EQ(rung, 8);
  EXPECT_TRUE(only<Switchboard::Tell>(board.hello(++stream, calls(6, 7), {}))) << "somebody else";
  EXPECT_TRUE(only<Switchboard::Tell>(board.hello(++stream, calls(6, 5), seconds(1)))) << "later";
}

// Whoever is called has streams of its own left.
TEST(Switchboard, ChargesBothEndsOfACallToTheCaller) {
  Switchboard::Options options;
  options.streams_per_peer = 2;
  Switchboard board(options);
  board.hello(1, registers(5), {});
  const auto rung = board.hello(2, calls(6, 5), {});
  ASSERT_TRUE(only<Switchboard::Join>(board.hello(3, accepts(5, only<Switchboard::Tell>(rung)->ring.call), {})));
  EXPECT_EQ(verdict(board.hello(4, calls(6, 5), {})), Verdict::kTooMany);
  board.closed(2);
  board.closed(3);
  EXPECT_TRUE(only<Switchboard::Tell>(board.hello(7, calls(6, 5), {})));
}

TEST(Switchboard, GivesEachPeerItsShareAndTakesItBack) {
  Switchboard::Options options;
  options.streams_per_peer = 2;
  options.streams = 3;
  Switchboard board(options);
  board.hello(1, registers(5), {});
  board.hello(2, registers(6), {});
  board.hello(3, calls(6, 5), {});
  EXPECT_EQ(verdict(board.hello(4, calls(6, 5), {})), Verdict::kTooMany);   // its own
  EXPECT_EQ(verdict(board.hello(5, registers(7), {})), Verdict::kTooMany);  // all
  board.closed(3);
  EXPECT_EQ(verdict(board.hello(6, registers(7), {})), Verdict::kWelcome);
  EXPECT_EQ(board.streams(), 3u);
  EXPECT_EQ(board.registered(), 3u);
}

}  // namespace
}  // namespace isthmus::relay
