#include "wire/message_codec.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/counter_random.h"
#include "base/replicas_max.h"
#include "wire/frame.h"
#include "wire/messenger.h"

namespace isthmus {
namespace {

constexpr std::uint64_t kRun = 77;

Limits limits() {
  Limits l;
  l.token_bytes = 10;
  l.forward_bytes = 100'000;  // two chunks
  l.backward_bytes = 50;
  l.microbatches = 70;
  l.stages = 4;
  l.members = 8;
  l.units = 12;
  return l;
}

StepTag tag() { return {SessionId(~0ull), SessionId(2), EpochId(3), StepId(4), 5}; }

SharedBytes filled(std::size_t size, std::uint8_t with) { return share(Bytes(size, with)); }

std::vector<Message> one_of_each() {
  View view;
  view.epoch = EpochId(9);
  view.step = StepId(3);
  view.live = {{PeerId(1), SessionId(11), StageId(0), ReplicaId(0), {1, 2, 3}, {"tcp://a:1", "tcp://a:2"}}};
  view.since = EpochId(7);
  view.gone = {SessionId(12), SessionId(13)};
  view.head_owner = {SessionId(11), kNoSession};
  view.head_again = {false, true};
  view.dealt_again = EpochId(8);
  view.absent = {StageId(1)};
  view.last_commit = Commit{StepId(2), 0, EpochId(8), 0.125, true, {StageId(1)}};
  view.preparing = true;
  DoneSet done(70);
  done.insert(MicrobatchId(69));
  view.owners = {{SessionId(11), done}};
  view.checkpointed = {0, 2};
  view.phase = Phase::kStopping;
  view.reason = "interrupted";
  view.moved = Place{StageId(1), ReplicaId(2)};
  view.measure = {4, SessionId(12)};
  view.partners = {{PeerId(2), SessionId(12), StageId(3), ReplicaId(0), {4}, {"tcp://b:1", "tcp://b:2"}}};
  Report report;
  report.session = SessionId(11);
  report.stage = StageId(3);
  report.epoch = EpochId(8);
  report.done = done;
  report.returned = done;
  report.norms = {{"layer.0", 1.5}, {"layer.1", 0.0}};
  report.losses = {{MicrobatchId(69), 12.25, 100}};
  report.weights = {{"head", "abcdef"}};
  report.fault = "disk full";
  report.fetching = "snapshot 6, 1 of 4 pieces here: 1 of worker 2";
  report.stats.queued = 3;
  report.stats.waiting_for = "the commit";
  report.device = {1ull << 34, {seconds(0.1), seconds(0.2), seconds(0.3)}, {}, {Duration(1), Duration(2), Duration(3)}};
  report.offences = {{SessionId(12), 31, "its numbers are not finite"}};
  report.link = {{4, SessionId(12)}, std::chrono::milliseconds(31), 79e6, 12.5};
  return {view,
          report,
          Forward{tag(), MicrobatchId(1), 2, true, {filled(100'000, 7), filled(10, 9)}},
          Backward{tag(), MicrobatchId(2), {filled(50, 3), nullptr}},
          Ask{tag(), MicrobatchId(3), 1},
          Held{tag(), MicrobatchId(4), 1, {5, 6, true}},
          Free{tag(), MicrobatchId(5), 1},
          Receipt{tag(), kUnasked, {5, 6, true}},
          Fetch{SessionId(11), SessionId(12), 1, {PieceKind::kOwnUpdate, 30, 0, 2, 7}},
          Chunk{SessionId(11), SessionId(12), 1, {PieceKind::kUpdate, 31, 0, 3}, "abc", Commit{StepId(31)}, {filled(400, 3), nullptr}, 1'000'000},
          Absent{SessionId(11), SessionId(12), 1, {PieceKind::kSnapshot, 31, 0, 1}},
          Sounding{SessionId(11), SessionId(12), 5, 300, {filled(70'000, 1), nullptr}},
          Echo{SessionId(12), SessionId(11), 5, {filled(300, 0), nullptr}}};
}

// Frames kept in the order they were sent.
class Wire final : public Transport {
 public:
  void send(Frame frame) override { frames.push_back(std::move(frame)); }
  std::vector<TransportEvent> poll(Time) override { return {}; }
  Time next_due() const override { return kNever; }
  std::uint64_t queued_bytes() const override { return 0; }
  std::vector<Frame> frames;
};

// A frame as it is after the wire: head and slice in buffers of their own.
Frame carried(const Frame& sent) {
  Frame f;
  f.peer = PeerId(1);
  f.head = sent.head;
  f.length = sent.length;
  if (sent.payload) f.payload = share(Bytes(sent.payload->begin() + sent.offset, sent.payload->begin() + sent.offset + sent.length));
  return f;
}

TEST(MessageCodec, BringsEveryMessageBack) {
  for (const Message& message : one_of_each()) {
    Wire wire;
    Messenger sender(wire, kRun, limits()), receiver(wire, kRun, limits());
    sender.send(PeerId(2), message);
    std::optional<Message> back;
    for (const auto& frame : wire.frames) back = receiver.receive(carried(frame));
    ASSERT_TRUE(back) << message.index() << " " << receiver.last_rejection();
    ASSERT_EQ(back->index(), message.index());
    EXPECT_EQ(encode_body(*back), encode_body(message));
    if (const auto* f = std::get_if<Forward>(&*back)) {
      EXPECT_EQ(*f->tensor.values, Bytes(100'000, 7));
      EXPECT_EQ(*f->tensor.tokens, Bytes(10, 9));
    }
    if (const auto* v = std::get_if<View>(&*back)) {
      EXPECT_EQ(v->measure, (LinkOrder{4, SessionId(12)}));
      EXPECT_EQ(v->dealt_again, EpochId(8));
    }
    if (const auto* r = std::get_if<Report>(&*back)) {
      EXPECT_EQ(r->returned, std::get<Report>(message).returned);
      EXPECT_EQ(r->fetching, std::get<Report>(message).fetching);
      EXPECT_EQ(r->device, std::get<Report>(message).device);
      EXPECT_EQ(r->link, std::get<Report>(message).link);
    }
    if (const auto* s = std::get_if<Sounding>(&*back)) {
      EXPECT_EQ(s->reply_bytes, 300u);
      EXPECT_EQ(s->tensor.values->size(), 70'000u);
    }
    EXPECT_EQ(receiver.rejected(), 0u);
  }
}

TEST(MessageCodec, RefusesMeasurementsThatCannotBe) {
  std::vector<Message> wrong;
  const auto report = [&](auto&& change) {
    Report r = std::get<Report>(one_of_each()[1]);
    change(r);
    wrong.push_back(std::move(r));
  };
  for (const double rate : {-1.0, 1e13, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    report([&](Report& r) { r.link.sent_bits_per_second = rate; });
    report([&](Report& r) { r.link.received_bits_per_second = rate; });
  }
  for (const Duration time : {Duration(std::chrono::hours(2)), Duration(-1)}) {
    report([&](Report& r) { r.link.latency = time; });
    report([&](Report& r) { r.device.layer.forward = time; });
    report([&](Report& r) { r.device.head.weight_gradient = time; });
  }
  wrong.push_back(Sounding{SessionId(11), SessionId(12), 5, kSoundingBytes + 1, {}});
  wrong.push_back(Sounding{SessionId(11), SessionId(12), 5, 0, {filled(kSoundingBytes + 1, 0), nullptr}});
  wrong.push_back(Echo{SessionId(11), SessionId(12), 5, {filled(kSoundingBytes + 1, 0), nullptr}});
  for (std::size_t i = 0; i < wrong.size(); ++i) EXPECT_FALSE(decode_body(static_cast<std::uint8_t>(wrong[i].index()), encode_body(wrong[i]), limits())) << i;
}

TEST(MessageCodec, LetsOnlyTheBulkOfAMeasurementWaitForTraining) {
  const Priority training = priority_of(one_of_each()[2]);
  EXPECT_GT(priority_of(Sounding{SessionId(1), SessionId(2), 1, 0, {filled(100, 0), nullptr}}), training);
  EXPECT_GT(priority_of(Echo{SessionId(1), SessionId(2), 1, {filled(100, 0), nullptr}}), training);
  EXPECT_EQ(priority_of(Sounding{SessionId(1), SessionId(2), 1, 100, {}}), Priority::kControl);
  EXPECT_EQ(priority_of(Echo{SessionId(1), SessionId(2), 1, {}}), Priority::kControl);
}

TEST(MessageCodec, CostsLittleBesideAPayload) {
  Wire wire;
  Messenger sender(wire, kRun, limits());
  sender.send(PeerId(2), one_of_each()[2]);
  std::size_t bytes = 0;
  for (const auto& frame : wire.frames) bytes += frame.bytes();
  EXPECT_LT(bytes, 100'010 + 3 * 50 + 60);
}

TEST(MessageCodec, RefusesTruncationAtEveryByte) {
  for (const Message& message : one_of_each()) {
    const Bytes body = encode_body(message);
    for (std::size_t length = 0; length < body.size(); ++length)
      EXPECT_FALSE(decode_body(static_cast<std::uint8_t>(message.index()), ByteView(body).first(length), limits())) << message.index();
  }
}

TEST(MessageCodec, RefusesAViewUponALaterOneAndMoreMembersThanTheRunHas) {
  View view;
  view.epoch = view.since = EpochId(9);
  view.gone.assign(8, SessionId(1));
  EXPECT_TRUE(decode_body(0, encode_body(view), limits()));
  View later = view, many = view;
  later.since = EpochId(10);
  EXPECT_FALSE(decode_body(0, encode_body(later), limits()));
  many.gone.push_back(SessionId(1));
  EXPECT_FALSE(decode_body(0, encode_body(many), limits()));
}

TEST(MessageCodec, SurvivesFlippedBitsInTheBody) {
  const CounterRandom random(5, "flips");
  std::uint64_t n = 0;
  for (const Message& message : one_of_each()) {
    const Bytes body = encode_body(message);
    for (int trial = 0; trial < 4000; ++trial) {
      Bytes damaged = body;
      for (std::uint64_t flips = 1 + random.below(3, n++); flips > 0; --flips) {
        const auto at = random.below(damaged.size(), n++);
        damaged[at] ^= static_cast<std::uint8_t>(1u << random.below(8, n++));
      }
      const auto decoded = decode_body(static_cast<std::uint8_t>(random.below(std::variant_size_v<Message>, n++)), damaged, limits());
      // Whatever still decodes keeps to the limits.
      if (!decoded) continue;
      EXPECT_LE(decoded->values_bytes + decoded->tokens_bytes, kSoundingBytes);
      if (const auto* report = std::get_if<Report>(&decoded->message)) {
        EXPECT_LT(report->stage.value, 4u);
        EXPECT_LE(report->losses.size(), 70u);
      }
    }
  }
}

TEST(MessageCodec, AllocatesNothingOnAStrangersWord) {
  // array32 of four billion elements, bin32 of four gigabytes, map32, nested arrays
  for (Bytes body : {Bytes{0xdd, 0xff, 0xff, 0xff, 0xff}, Bytes{0xc6, 0xff, 0xff, 0xff, 0xff}, Bytes{0xdf, 0xff, 0xff, 0xff, 0xff}, Bytes(4000, 0x91)})
    for (std::uint8_t kind = 0; kind < std::variant_size_v<Message>; ++kind) EXPECT_FALSE(decode_body(kind, body, limits()));
}

TEST(Messenger, RefusesDamagedForeignAndUnfinishedFrames) {
  Wire wire;
  Messenger sender(wire, kRun, limits()), other_run(wire, kRun + 1, limits());
  sender.send(PeerId(2), one_of_each()[2]);
  const auto frames = wire.frames;
  ASSERT_GE(frames.size(), 3u);
  Messenger receiver(wire, kRun, limits());
  std::uint64_t rejected = 0;
  const auto refuses = [&](Frame frame) {
    EXPECT_FALSE(receiver.receive(std::move(frame)));
    EXPECT_EQ(receiver.rejected(), ++rejected) << receiver.last_rejection();
  };
  EXPECT_FALSE(other_run.receive(carried(frames[0])));
  EXPECT_EQ(other_run.rejected(), 1u);
  refuses(carried(frames[1]));  // no first frame
  for (std::size_t at = 0; at < frames[0].head.size(); ++at) {
    Frame damaged = carried(frames[0]);
    damaged.head[at] ^= 0x10;
    refuses(std::move(damaged));
  }
  Frame other_payload = carried(frames[0]);
  other_payload.payload = share(Bytes(other_payload.length, 8));
  refuses(std::move(other_payload));
  // A hole in the middle ends the message, and it can be sent again.
  EXPECT_FALSE(receiver.receive(carried(frames[0])));
  refuses(carried(frames[2]));
  std::optional<Message> back;
  for (const auto& frame : frames) back = receiver.receive(carried(frame));
  EXPECT_TRUE(back);
}

TEST(Messenger, KeepsMessagesOfDifferentPeersAndKindsApart) {
  Wire wire;
  Messenger sender(wire, kRun, limits()), receiver(wire, kRun, limits());
  sender.send(PeerId(2), one_of_each()[2]);
  std::optional<Message> a, b;
  for (const auto& frame : wire.frames) {
    Frame from_one = carried(frame), from_three = carried(frame);
    from_three.peer = PeerId(3);
    a = receiver.receive(std::move(from_one));
    b = receiver.receive(std::move(from_three));
  }
  EXPECT_TRUE(a);
  EXPECT_TRUE(b);
  EXPECT_EQ(receiver.rejected(), 0u);
}

// What a worker is told first: the members of its stage and of two on either side.
TEST(MessageCodec, NamesTheLargestStagesInOneFrame) {
  View view;
  view.checkpointed.assign(1024, 1'000'000);
  for (std::uint32_t i = 0; i < 5 * kReplicasMax; ++i)
    view.live.push_back({PeerId(100'000 + i), SessionId(~0ull - i), StageId(1000 + i / kReplicasMax), ReplicaId(i % kReplicasMax), {},
                         {"tcp://[2001:db8:1234:5678:9abc:def0:1234:5678]:49152", "tcp://[2001:db8:1234:5678:9abc:def0:1234:5678]:49153"}});
  EXPECT_LE(kFrameHeaderBytes + encode_body(view).size(), kFrameBytesMax);
}

}  // namespace
}  // namespace isthmus
