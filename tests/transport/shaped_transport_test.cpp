#include "transport/shaped_transport.h"

#include <gtest/gtest.h>

namespace isthmus::transport {
namespace {

// Two ends that reach each other at once: what one sends the other polls.
class Loop final : public Transport {
 public:
  void send(Frame frame) override { arrived.push_back(FrameReceived{std::move(frame)}); }
  std::vector<TransportEvent> poll(Time) override { return std::exchange(arrived, {}); }
  Time next_due() const override { return kNever; }
  std::uint64_t queued_bytes() const override { return 0; }
  std::vector<TransportEvent> arrived;
};

Frame frame(protocol::Priority priority, std::size_t bytes, std::uint8_t mark = 0) {
  Frame f;
  f.peer = PeerId(1);
  f.priority = priority;
  f.head = Bytes(8, mark);
  f.payload = share(Bytes(bytes, mark));
  return f;
}

// Plays until nothing is left; when each frame came out, by its mark.
std::vector<std::pair<std::uint8_t, Time>> play(ShapedTransport& link, Time from) {
  std::vector<std::pair<std::uint8_t, Time>> out;
  Time now = from;
  for (int turn = 0; turn < 100'000; ++turn) {
    for (auto& event : link.poll(now))
      if (auto* received = std::get_if<FrameReceived>(&event)) out.emplace_back(received->frame.head[0], now);
    const Time due = link.next_due();
    if (due == kNever) break;
    now = std::max(now, due);
  }
  return out;
}

constexpr LinkShape kHome{80e6, std::chrono::milliseconds(50), {}, 0, 1};

TEST(ShapedTransport, TakesTransmissionPlusLatency) {
  Loop loop;
  ShapedTransport link(loop, kHome);
  (void)link.poll(seconds(1));
  const Frame f = frame(protocol::Priority::kActivation, 60'000);
  const Duration transmit = link.transmit_time(f);
  EXPECT_GT(to_seconds(transmit), 60'000 * 8 / 80e6);
  EXPECT_LT(to_seconds(transmit), 60'000 * 8 / 80e6 * 1.05);
  link.send(f);
  const auto out = play(link, seconds(1));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].second, seconds(1) + transmit + std::chrono::milliseconds(50));
}

TEST(ShapedTransport, NeverExceedsItsRate) {
  Loop loop;
  ShapedTransport link(loop, kHome);
  (void)link.poll(seconds(1));
  Duration busy{};
  for (int i = 0; i < 100; ++i) {
    busy += link.transmit_time(frame(protocol::Priority::kActivation, 60'000));
    link.send(frame(protocol::Priority::kActivation, 60'000, static_cast<std::uint8_t>(i)));
  }
  const auto out = play(link, seconds(1));
  ASSERT_EQ(out.size(), 100u);
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i].first, i);
  EXPECT_NEAR(to_seconds(out.back().second), to_seconds(seconds(1) + busy) + .05, 1e-6);
}

TEST(ShapedTransport, LetsGradientsAndControlOvertakeActivations) {
  Loop loop;
  ShapedTransport link(loop, kHome);
  (void)link.poll(seconds(1));
  for (std::uint8_t i = 0; i < 5; ++i) link.send(frame(protocol::Priority::kActivation, 60'000, i));
  link.send(frame(protocol::Priority::kGradient, 60'000, 50));
  link.send(frame(protocol::Priority::kControl, 100, 90));
  const auto out = play(link, seconds(1));
  ASSERT_EQ(out.size(), 7u);
  EXPECT_EQ(out[0].first, 90);
  EXPECT_EQ(out[1].first, 50);
  EXPECT_EQ(out[2].first, 0);
}

TEST(ShapedTransport, KeepsTheOrderOfAPeersFramesUnderJitter) {
  Loop loop;
  LinkShape shape = kHome;
  shape.jitter = std::chrono::milliseconds(80);
  shape.loss = .1;
  ShapedTransport link(loop, shape);
  (void)link.poll(seconds(1));
  for (std::uint8_t i = 0; i < 50; ++i) link.send(frame(protocol::Priority::kActivation, 1000, i));
  const auto out = play(link, seconds(1));
  ASSERT_EQ(out.size(), 50u);
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i].first, i);
}

TEST(ShapedTransport, LosesNothingAndRepeatsItsSeed) {
  const auto last = [](std::uint64_t seed) {
    Loop loop;
    LinkShape shape = kHome;
    shape.loss = .3;
    shape.seed = seed;
    ShapedTransport link(loop, shape);
    (void)link.poll(seconds(1));
    for (std::uint8_t i = 0; i < 100; ++i) link.send(frame(protocol::Priority::kActivation, 1000, i));
    const auto out = play(link, seconds(1));
    EXPECT_EQ(out.size(), 100u);
    EXPECT_EQ(link.queued_bytes(), 0u);
    return out.back().second;
  };
  EXPECT_EQ(last(1), last(1));
  EXPECT_NE(last(1), last(2));
}

}  // namespace
}  // namespace isthmus::transport
