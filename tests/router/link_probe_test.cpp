#include "router/link_probe.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>

namespace isthmus::router {
namespace {

constexpr Duration kLatency = std::chrono::milliseconds(20);
constexpr double kUp = 2e6, kDown = 5e6;  // bytes per second, from worker 2 to worker 1 and back

// Two workers and a link between them, by hand.
class LinkProbeTest : public ::testing::Test {
 protected:
  struct Worker {
    explicit Worker(std::uint32_t peer)
        : context{
              {}, {PeerId(peer), StageId(peer - 1), ReplicaId(0), {}, seconds(2), 10e6}, {}, {}, SessionId(peer * 10),
              {}} {}
    WorkerContext context;
    Connections connections{context};
    LinkProbe probe{context, connections};
  };
  LinkProbeTest() {
    for (Worker* worker : {&one_, &two_})
      for (std::uint32_t peer : {1u, 2u}) {
        const protocol::Member member{PeerId(peer), SessionId(peer * 10), StageId(peer - 1), ReplicaId(0), {}, {}};
        auto& view = worker->context.view;
        (worker->context.identity.peer == member.peer ? view.live : view.partners).push_back(member);
      }
  }
  void order(std::uint32_t number, SessionId to = SessionId(10)) {
    two_.context.view.measure = {number, to};
    two_.probe.view_changed(now_);
    collect();
  }
  // What a worker sends leaves for the other.
  void collect() {
    for (Worker* worker : {&one_, &two_})
      for (auto& effect : std::exchange(worker->context.effects, {})) {
        if (const auto* dial = std::get_if<protocol::Dial>(&effect)) connected_.push_back(dial->member.peer);
        auto* sent = std::get_if<protocol::SendMessage>(&effect);
        if (!sent) continue;
        ++sent_;
        if (lose_ && lose_(sent->message)) continue;
        const double bytes = static_cast<double>(protocol::tensor_of(sent->message)->bytes());
        arrivals_.emplace(now_ + kLatency + seconds(bytes / (worker == &two_ ? kUp : kDown)),
                          std::pair(worker == &two_ ? &one_ : &two_, std::move(sent->message)));
      }
  }
  void run(Duration time) {
    for (const Time until = now_ + time;;) {
      const Time due = std::min(two_.probe.next_due(), arrivals_.empty() ? kNever : arrivals_.begin()->first);
      if (due > until) break;
      now_ = due;
      if (!arrivals_.empty() && arrivals_.begin()->first <= now_) {
        auto [to, message] = std::move(arrivals_.extract(arrivals_.begin()).mapped());
        const PeerId from(to == &one_ ? 2 : 1);
        const auto* sounding = std::get_if<protocol::Sounding>(&message);
        EXPECT_TRUE(sounding ? to->probe.received(*sounding, from, now_)
                             : to->probe.received(std::get<protocol::Echo>(message), from, now_));
      } else {
        two_.probe.tick(now_);
      }
      collect();
    }
  }

  Worker one_{1}, two_{2};
  Time now_ = seconds(50);
  std::multimap<Time, std::pair<Worker*, protocol::Message>> arrivals_;
  std::vector<PeerId> connected_;
  int sent_ = 0;
  std::function<bool(const protocol::Message&)> lose_;
};

TEST_F(LinkProbeTest, FindsLatencyAndRateBothWays) {
  order(1);
  EXPECT_EQ(connected_, std::vector{PeerId(1)});
  run(seconds(10));
  const protocol::LinkFigures& found = two_.probe.figures();
  EXPECT_EQ(found.order, (protocol::LinkOrder{1, SessionId(10)}));
  EXPECT_EQ(found.latency, kLatency);
  EXPECT_NEAR(found.sent_bits_per_second, kUp * 8, 1);
  EXPECT_NEAR(found.received_bits_per_second, kDown * 8, 1);
  EXPECT_EQ(two_.probe.next_due(), kNever);
  // The same order in every view is one.
  const int sent = sent_;
  order(1);
  EXPECT_EQ(sent_, sent);
  order(2);
  EXPECT_GT(sent_, sent);
}

TEST_F(LinkProbeTest, TakesTheFastestOfSeveral) {
  int n = 0;
  // The first answers and the last of each kind come late, as behind a queue.
  lose_ = [&](const protocol::Message& message) {
    if (std::holds_alternative<protocol::Echo>(message) && (n == 0 || n == 7 || n == 8 || n == 10 || n == 13))
      now_ += std::chrono::milliseconds(300);
    n += std::holds_alternative<protocol::Echo>(message);
    return false;
  };
  order(1);
  run(seconds(20));
  EXPECT_EQ(two_.probe.figures().latency, kLatency);
  EXPECT_NEAR(two_.probe.figures().sent_bits_per_second, kUp * 8, 1);
  EXPECT_NEAR(two_.probe.figures().received_bits_per_second, kDown * 8, 1);
}

TEST_F(LinkProbeTest, AsksAgainForWhatIsLost) {
  int n = 0;
  lose_ = [&](const protocol::Message&) { return ++n == 3 || n == 18; };
  order(1);
  run(seconds(60));
  EXPECT_EQ(two_.probe.figures().latency, kLatency);
  EXPECT_NEAR(two_.probe.figures().sent_bits_per_second, kUp * 8, 1);
}

TEST_F(LinkProbeTest, GivesUpOnWhoDoesNotAnswer) {
  lose_ = [](const protocol::Message& message) { return std::holds_alternative<protocol::Echo>(message); };
  order(7);
  run(seconds(60));
  EXPECT_EQ(two_.probe.figures(), (protocol::LinkFigures{.order = {7, SessionId(10)}}));
  EXPECT_FALSE(two_.probe.figures().answered());
  EXPECT_EQ(two_.probe.next_due(), kNever);
}

TEST_F(LinkProbeTest, StopsWhenTheOrderIsTakenBackOrTheOtherHasGone) {
  order(1);
  order(0, kNoSession);
  EXPECT_EQ(two_.probe.next_due(), kNever);
  order(2);
  two_.context.view.live.erase(two_.context.view.live.begin());
  two_.probe.view_changed(now_);
  EXPECT_EQ(two_.probe.next_due(), kNever);
  EXPECT_EQ(two_.probe.figures().order.number, 0u);
  // An answer that was on its way is no answer any more, and no fault either.
  EXPECT_TRUE(two_.probe.received(protocol::Echo{SessionId(10), SessionId(20), 1, {}}, PeerId(1), now_));
}

TEST_F(LinkProbeTest, MeasuresNothingForAStrangerOrItself) {
  order(1, SessionId(999));
  order(2, SessionId(20));
  EXPECT_EQ(sent_, 0);
}

TEST_F(LinkProbeTest, AnswersOnlyMembersAndNotWithoutEnd) {
  const auto ask = [&](std::uint64_t from, std::uint64_t to, std::uint32_t peer, std::uint64_t bytes) {
    return one_.probe.received(protocol::Sounding{SessionId(from), SessionId(to), 1, bytes, {}}, PeerId(peer), now_);
  };
  EXPECT_TRUE(ask(20, 10, 2, 0));
  EXPECT_FALSE(ask(20, 11, 2, 0));  // another life
  EXPECT_FALSE(ask(77, 10, 2, 0));  // a stranger
  EXPECT_FALSE(ask(20, 10, 3, 0));  // in another's name
  std::uint64_t answered = 0;
  for (int i = 0; i < 1000; ++i) answered += ask(20, 10, 2, protocol::kSoundingBytes);
  EXPECT_EQ(answered, protocol::kSoundings);
  now_ += seconds(1);  // a tenth of the uplink
  for (int i = 0; i < 1000; ++i) answered += ask(20, 10, 2, protocol::kSoundingBytes);
  EXPECT_LE(answered, protocol::kSoundings + 1'000'000 / protocol::kSoundingBytes);
}

TEST_F(LinkProbeTest, FillsNoSlowLinkForLong) {
  Worker slow(2);
  const_cast<double&>(slow.context.identity.bytes_per_second) = 1e5;
  slow.context.view = two_.context.view;
  slow.context.view.measure = {1, SessionId(10)};
  slow.probe.view_changed(now_);
  std::uint64_t most = 0;
  for (int i = 0; i < 40; ++i)
    for (auto& effect : std::exchange(slow.context.effects, {}))
      if (const auto* sent = std::get_if<protocol::SendMessage>(&effect)) {
        const auto& sounding = std::get<protocol::Sounding>(sent->message);
        most = std::max({most, sounding.tensor.bytes(), sounding.reply_bytes});
        compress::EncodedTensor back;
        if (sounding.reply_bytes > 0) back.values = share(Bytes(sounding.reply_bytes, 0));
        now_ += seconds(0.1);
        (void)slow.probe.received(protocol::Echo{SessionId(10), SessionId(20), sounding.serial, std::move(back)},
                                  PeerId(1), now_);
        break;
      }
  EXPECT_TRUE(slow.probe.figures().answered());
  EXPECT_EQ(most, 25'000u);
}

}  // namespace
}  // namespace isthmus::router
