#include "wire/message_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/counter_random.h"
#include "base/replicas_max.h"
#include "wire/example_messages.h"
#include "wire/frame.h"
#include "wire/messenger.h"

namespace isthmus::wire {
namespace {

constexpr std::uint64_t kRun = 77;

// Frames kept in the order they were sent.
class Wire final : public transport::Transport {
 public:
  void send(transport::Frame frame) override { frames.push_back(std::move(frame)); }
  std::vector<transport::TransportEvent> poll(Time) override { return {}; }
  Time next_due() const override { return kNever; }
  std::uint64_t queued_bytes() const override { return 0; }
  std::vector<transport::Frame> frames;
};

// A frame as it is after the wire: head and slice in buffers of their own.
transport::Frame carried(const transport::Frame& sent) {
  transport::Frame f;
  f.peer = PeerId(1);
  f.head = sent.head;
  if (sent.payload) f.payload = share(Bytes(sent.payload->begin(), sent.payload->end()));
  return f;
}

TEST(MessageCodec, BringsEveryMessageBack) {
  for (const protocol::Message& message : examples()) {
    Wire wire;
    Messenger sender(wire, kRun, example_limits()), receiver(wire, kRun, example_limits());
    sender.send(PeerId(2), message);
    std::optional<protocol::Message> back;
    for (const auto& frame : wire.frames) back = receiver.receive(carried(frame));
    ASSERT_TRUE(back) << message.index() << " " << receiver.last_rejection();
    ASSERT_EQ(back->index(), message.index());
    EXPECT_EQ(encode_body(*back), encode_body(message));
    if (const auto* f = std::get_if<protocol::Forward>(&*back)) {
      EXPECT_EQ(f->tensor.values, share(Bytes(100'000, 7)));
      EXPECT_EQ(f->tensor.tokens, share(Bytes(10, 9)));
    }
    if (const auto* v = std::get_if<protocol::View>(&*back)) {
      EXPECT_EQ(*v, example_view());
    }
    if (const auto* r = std::get_if<protocol::Report>(&*back)) {
      EXPECT_EQ(*r, example_report());
    }
    if (const auto* c = std::get_if<protocol::Chunk>(&*back)) {
      const auto& sent = std::get<protocol::Chunk>(message);
      EXPECT_EQ(c->piece, sent.piece);
      EXPECT_EQ(c->commit, sent.commit);
      EXPECT_EQ(c->digest, sent.digest);
    }
    if (const auto* s = std::get_if<protocol::Sounding>(&*back)) {
      EXPECT_EQ(s->reply_bytes, 300u);
      EXPECT_EQ(s->tensor.values->size(), 70'000u);
    }
    if (const auto* c = std::get_if<protocol::CheckpointPiece>(&*back)) {
      const auto& sent = std::get<protocol::CheckpointPiece>(message);
      EXPECT_EQ(c->facts, sent.facts);
      EXPECT_EQ(c->tensor.values, sent.tensor.values);
    }
    EXPECT_EQ(receiver.rejected(), 0u);
  }
}

TEST(MessageCodec, RefusesMeasurementsThatCannotBe) {
  std::vector<protocol::Message> wrong;
  const auto report = [&](auto&& change) {
    protocol::Report r = std::get<protocol::Report>(examples()[1]);
    change(r);
    wrong.push_back(std::move(r));
  };
  for (const double rate :
       {-1.0, 1e13, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    report([&](protocol::Report& r) { r.link.sent_bits_per_second = rate; });
    report([&](protocol::Report& r) { r.link.received_bits_per_second = rate; });
  }
  for (const Duration time : {Duration(std::chrono::hours(2)), Duration(-1)}) {
    report([&](protocol::Report& r) { r.link.latency = time; });
    report([&](protocol::Report& r) { r.device.layer.forward = time; });
    report([&](protocol::Report& r) { r.device.head.weight_gradient = time; });
  }
  wrong.push_back(protocol::Sounding{SessionId(11), SessionId(12), 5, protocol::kSoundingBytes + 1, {}});
  wrong.push_back(
      protocol::Sounding{SessionId(11), SessionId(12), 5, 0, {filled(protocol::kSoundingBytes + 1, 0), nullptr}});
  wrong.push_back(protocol::Echo{SessionId(11), SessionId(12), 5, {filled(protocol::kSoundingBytes + 1, 0), nullptr}});
  for (std::size_t i = 0; i < wrong.size(); ++i)
    EXPECT_FALSE(decode_body(static_cast<std::uint8_t>(wrong[i].index()), encode_body(wrong[i]), example_limits()))
        << i;
}

TEST(MessageCodec, RefusesTokenIdsOfAnyOtherLengthThanThePlans) {
  std::vector<protocol::Message> wrong;
  wrong.push_back(protocol::TokenRequest{StepId(1), DoneSet(71)});
  for (const std::size_t bytes : {0u, 9u, 11u, 20u})
    wrong.push_back(protocol::TokenIds{{StepId(1), MicrobatchId(0)}, {nullptr, filled(bytes, 0)}});
  wrong.push_back(protocol::TokenIds{{StepId(1), MicrobatchId(0)}, {filled(1, 0), filled(10, 0)}});
  wrong.push_back(protocol::TokenIds{{StepId(1), MicrobatchId(70)}, {nullptr, filled(10, 0)}});
  for (std::size_t i = 0; i < wrong.size(); ++i)
    EXPECT_FALSE(decode_body(static_cast<std::uint8_t>(wrong[i].index()), encode_body(wrong[i]), example_limits()))
        << i;
}

TEST(MessageCodec, LetsOnlyTheBulkOfAMeasurementWaitForTraining) {
  const protocol::Priority training = protocol::priority_of(examples()[2]);
  EXPECT_GT(protocol::priority_of(protocol::Sounding{SessionId(1), SessionId(2), 1, 0, {filled(100, 0), nullptr}}),
            training);
  EXPECT_GT(protocol::priority_of(protocol::Echo{SessionId(1), SessionId(2), 1, {filled(100, 0), nullptr}}), training);
  EXPECT_EQ(protocol::priority_of(protocol::Sounding{SessionId(1), SessionId(2), 1, 100, {}}),
            protocol::Priority::kControl);
  EXPECT_EQ(protocol::priority_of(protocol::Echo{SessionId(1), SessionId(2), 1, {}}), protocol::Priority::kControl);
}

// A head that lacks them may have nothing else to do.
TEST(MessageCodec, LetsTokenIdsStandBehindNoState) {
  EXPECT_EQ(protocol::priority_of(protocol::TokenRequest()), protocol::Priority::kControl);
  EXPECT_EQ(protocol::priority_of(protocol::token_ids({StepId(1), MicrobatchId(0)}, Bytes(10))),
            protocol::Priority::kActivation);
}

TEST(MessageCodec, RefusesPiecesOfACheckpointOfAnotherSizeThanItsFactsSay) {
  constexpr std::uint64_t kBytes = 2 * protocol::kPieceBytes + 300;
  const auto taken = [](std::uint64_t bytes, std::uint32_t index, std::size_t values) {
    const protocol::Message piece =
        protocol::CheckpointPiece{{7, 1, bytes, "abc"}, index, {filled(values, 1), nullptr}};
    return decode_body(static_cast<std::uint8_t>(piece.index()), encode_body(piece), example_limits()).has_value();
  };
  EXPECT_TRUE(taken(kBytes, 0, protocol::kPieceBytes));
  EXPECT_TRUE(taken(kBytes, 1, protocol::kPieceBytes));
  EXPECT_TRUE(taken(kBytes, 2, 300));
  for (const std::size_t values : {std::size_t{0}, std::size_t{299}, std::size_t{301}, std::size_t{600},
                                   static_cast<std::size_t>(protocol::kPieceBytes)})
    EXPECT_FALSE(taken(kBytes, 2, values)) << values;
  EXPECT_FALSE(taken(kBytes, 0, protocol::kPieceBytes - 1));
  EXPECT_FALSE(taken(kBytes, 0, protocol::kPieceBytes + 1));
  EXPECT_FALSE(taken(kBytes, 0, 0));
  // Behind the end there is nothing, nor of what the sender has not got.
  for (const std::uint32_t index : {3u, 1u << 30, protocol::kFactsOnly}) {
    EXPECT_TRUE(taken(kBytes, index, 0)) << index;
    EXPECT_FALSE(taken(kBytes, index, 1)) << index;
    EXPECT_TRUE(taken(0, index, 0)) << index;
    EXPECT_FALSE(taken(0, index, 300)) << index;
  }
}

// A run goes on while it is saved.
TEST(MessageCodec, LetsPiecesOfACheckpointWaitForTraining) {
  const protocol::CheckpointPiece piece{{7, 1, 300, "abc"}, 0, {filled(300, 1), nullptr}};
  const protocol::CheckpointPiece facts{{7, 1, 300, "abc"}, protocol::kFactsOnly, {}};
  for (const auto& message : {piece, facts}) {
    EXPECT_EQ(protocol::priority_of(message), protocol::Priority::kState);
    EXPECT_EQ(protocol::traffic_of(message), protocol::Traffic::kState);
  }
  EXPECT_EQ(protocol::priority_of(protocol::CheckpointRequest()), protocol::Priority::kControl);
  EXPECT_EQ(protocol::traffic_of(protocol::CheckpointRequest()), protocol::Traffic::kControl);
}

TEST(MessageCodec, CostsLittleBesideAPayload) {
  Wire wire;
  Messenger sender(wire, kRun, example_limits());
  sender.send(PeerId(2), examples()[2]);
  std::size_t bytes = 0;
  for (const auto& frame : wire.frames) bytes += frame.bytes();
  EXPECT_LT(bytes, 100'010 + 3 * 50 + 60);
}

TEST(MessageCodec, RefusesTruncationAtEveryByte) {
  for (const protocol::Message& message : examples()) {
    const Bytes body = encode_body(message);
    for (std::size_t length = 0; length < body.size(); ++length)
      EXPECT_FALSE(
          decode_body(static_cast<std::uint8_t>(message.index()), ByteView(body).first(length), example_limits()))
          << message.index();
  }
}

TEST(MessageCodec, RefusesAViewUponALaterOneAndMoreMembersThanTheRunHas) {
  protocol::View view;
  view.epoch = view.since = EpochId(9);
  view.gone.assign(8, SessionId(1));
  EXPECT_TRUE(decode_body(0, encode_body(view), example_limits()));
  protocol::View later = view, many = view;
  later.since = EpochId(10);
  EXPECT_FALSE(decode_body(0, encode_body(later), example_limits()));
  many.gone.push_back(SessionId(1));
  EXPECT_FALSE(decode_body(0, encode_body(many), example_limits()));
}

TEST(MessageCodec, SurvivesFlippedBitsInTheBody) {
  const CounterRandom random(5, "flips");
  std::uint64_t n = 0;
  for (const protocol::Message& message : examples()) {
    const Bytes body = encode_body(message);
    for (int trial = 0; trial < 4000; ++trial) {
      Bytes damaged = body;
      for (std::uint64_t flips = 1 + random.below(3, n++); flips > 0; --flips) {
        const auto at = random.below(damaged.size(), n++);
        damaged[at] ^= static_cast<std::uint8_t>(1u << random.below(8, n++));
      }
      const auto decoded =
          decode_body(static_cast<std::uint8_t>(random.below(std::variant_size_v<protocol::Message>, n++)), damaged,
                      example_limits());
      // Whatever still decodes keeps to the limits.
      if (!decoded) continue;
      EXPECT_LE(decoded->values_bytes + decoded->tokens_bytes, protocol::kSoundingBytes);
      if (const auto* report = std::get_if<protocol::Report>(&decoded->message)) {
        EXPECT_LT(report->stage.value, 4u);
        EXPECT_LE(report->losses.size(), 70u);
      }
    }
  }
}

TEST(MessageCodec, AllocatesNothingOnAStrangersWord) {
  // array32 of four billion elements, bin32 of four gigabytes, map32, nested arrays
  for (Bytes body : {Bytes{0xdd, 0xff, 0xff, 0xff, 0xff}, Bytes{0xc6, 0xff, 0xff, 0xff, 0xff},
                     Bytes{0xdf, 0xff, 0xff, 0xff, 0xff}, Bytes(4000, 0x91)})
    for (std::uint8_t kind = 0; kind < std::variant_size_v<protocol::Message>; ++kind)
      EXPECT_FALSE(decode_body(kind, body, example_limits()));
}

TEST(MessageCodec, RefusesWhatFollowsAMessage) {
  for (const protocol::Message& message : examples()) {
    Bytes body = encode_body(message);
    body.push_back(0);
    const auto decoded = decode_body(static_cast<std::uint8_t>(message.index()), body, example_limits());
    ASSERT_FALSE(decoded) << message.index();
    EXPECT_NE(decoded.error().message.find("1 bytes too many"), std::string::npos) << decoded.error().message;
  }
}

TEST(MessageCodec, RefusesKindsAndValuesThatItDoesNotKnow) {
  EXPECT_FALSE(decode_body(24, encode_body(examples()[4]), example_limits()));
  EXPECT_FALSE(decode_body(255, {}, example_limits()));
  protocol::View view;
  view.phase = static_cast<protocol::Phase>(4);
  EXPECT_FALSE(decode_body(0, encode_body(view), example_limits()));
  protocol::Fetch fetch;
  fetch.piece.kind = static_cast<protocol::PieceKind>(7);
  EXPECT_FALSE(decode_body(15, encode_body(fetch), example_limits()));
}

// Every list of a message, one element longer than the run allows.
TEST(MessageCodec, RefusesMoreThanTheRunCanHave) {
  Limits none = example_limits();
  for (std::uint32_t* limit : {&none.members, &none.microbatches, &none.units, &none.stages}) {
    const std::uint32_t before = std::exchange(*limit, 0);
    EXPECT_EQ(decode_body(0, encode_body(example_view()), none).has_value(), limit == &none.units);
    EXPECT_FALSE(decode_body(1, encode_body(example_report()), none));
    *limit = before;
  }
  protocol::View view;
  view.rollbacks.assign(1025, 1);
  EXPECT_FALSE(decode_body(0, encode_body(view), example_limits()));
}

TEST(MessageCodec, SaysWhichFieldIsWrong) {
  protocol::Report report = example_report();
  report.losses[1].microbatch = MicrobatchId(70);
  const auto decoded = decode_body(1, encode_body(report), example_limits());
  ASSERT_FALSE(decoded);
  EXPECT_NE(decoded.error().message.find("losses.microbatch: 70, expected less than 70"), std::string::npos)
      << decoded.error().message;
}

// A name would be looked up while everything else waits; other transports lead into this process or its files.
TEST(MessageCodec, RefusesAddressesThatAreNotNumeric) {
  const auto is_taken = [](const std::string& endpoint) {
    protocol::Report report;
    report.endpoints = {"tcp://192.0.2.1:1", endpoint};
    protocol::View view;
    view.live.resize(1);
    view.live[0].location = {"192.0.2.1", {endpoint, "tcp://192.0.2.1:1"}};
    const bool by_report = decode_body(1, encode_body(report), example_limits()).has_value();
    EXPECT_EQ(decode_body(0, encode_body(view), example_limits()).has_value(), by_report) << endpoint;
    return by_report;
  };
  for (const char* good : {"", "tcp://192.0.2.1:65535", "tcp://[2001:db8::1]:1"}) EXPECT_TRUE(is_taken(good)) << good;
  for (const char* bad : {"tcp://localhost:1", "tcp://example.org:80", "ipc:///tmp/x", "inproc://x", "192.0.2.1:1",
                          "tcp://192.0.2.1:0", "tcp://192.0.2.1:65536", "tcp://192.0.2.1", "tcp://*:1",
                          "tcp://192.0.2.1:1;192.0.2.2:2", "tcp://eth0:1", "tcp://"})
    EXPECT_FALSE(is_taken(bad)) << bad;
}

TEST(MessageCodec, RefusesTextsThatAreNotPlain) {
  protocol::Report report;
  report.fault = "wörker";
  const Bytes body = encode_body(report);
  EXPECT_TRUE(decode_body(1, body, example_limits()));
  const auto at = std::ranges::search(body, std::string("rker")).begin() - body.begin();  // behind the two bytes of ö
  ASSERT_EQ(body[static_cast<std::size_t>(at) - 2], 0xc3);
  for (const auto& [first, second] :
       {std::pair{0x1b, 0x5b}, {0xc3, 0x28}, {0xc0, 0x80}, {0xc2, 0x85}, {0x0a, 0x41}, {0x7f, 0x41}, {0xff, 0xff}}) {
    Bytes wrong = body;
    wrong[static_cast<std::size_t>(at) - 2] = static_cast<std::uint8_t>(first);
    wrong[static_cast<std::size_t>(at) - 1] = static_cast<std::uint8_t>(second);
    EXPECT_FALSE(decode_body(1, wrong, example_limits())) << first;
  }
}

// A report that is refused would be sent again for ever, and nobody would hear why its worker stopped.
TEST(MessageCodec, SendsWhatPeopleWroteSoThatItIsTaken) {
  protocol::Report report;
  report.fault = "line 1\nline 2\x1b[2J \xff";
  report.warning = std::string(4095, 'x') + "ö";
  report.stats.waiting_for = std::string(1000, 'x');
  const auto decoded = decode_body(1, encode_body(report), example_limits());
  ASSERT_TRUE(decoded) << decoded.error().message;
  const auto& back = std::get<protocol::Report>(decoded->message);
  EXPECT_EQ(back.fault, "line 1 line 2?[2J ?");
  EXPECT_EQ(back.warning, std::string(4095, 'x'));
  EXPECT_EQ(back.stats.waiting_for, std::string(256, 'x'));
}

TEST(Messenger, RefusesDamagedForeignAndUnfinishedFrames) {
  Wire wire;
  Messenger sender(wire, kRun, example_limits()), other_run(wire, kRun + 1, example_limits());
  sender.send(PeerId(2), examples()[2]);
  const auto frames = wire.frames;
  ASSERT_GE(frames.size(), 3u);
  Messenger receiver(wire, kRun, example_limits());
  std::uint64_t rejected = 0;
  const auto refuses = [&](transport::Frame frame) {
    EXPECT_FALSE(receiver.receive(std::move(frame)));
    EXPECT_EQ(receiver.rejected(), ++rejected) << receiver.last_rejection();
  };
  EXPECT_FALSE(other_run.receive(carried(frames[0])));
  EXPECT_EQ(other_run.rejected(), 1u);
  refuses(carried(frames[1]));  // no first frame
  for (std::size_t at = 0; at < frames[0].head.size(); ++at) {
    transport::Frame damaged = carried(frames[0]);
    damaged.head[at] ^= 0x10;
    refuses(std::move(damaged));
  }
  transport::Frame other_payload = carried(frames[0]);
  other_payload.payload = share(Bytes(other_payload.payload->size(), 8));
  refuses(std::move(other_payload));
  // A hole in the middle ends the message, and it can be sent again.
  EXPECT_FALSE(receiver.receive(carried(frames[0])));
  refuses(carried(frames[2]));
  std::optional<protocol::Message> back;
  for (const auto& frame : frames) back = receiver.receive(carried(frame));
  EXPECT_TRUE(back);
}

TEST(Messenger, KeepsMessagesOfDifferentPeersAndKindsApart) {
  Wire wire;
  Messenger sender(wire, kRun, example_limits()), receiver(wire, kRun, example_limits());
  sender.send(PeerId(2), examples()[2]);
  std::optional<protocol::Message> a, b;
  for (const auto& frame : wire.frames) {
    transport::Frame from_one = carried(frame), from_three = carried(frame);
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
  protocol::View view;
  view.checkpointed.assign(1024, 1'000'000);
  for (std::uint32_t i = 0; i < 5 * kReplicasMax; ++i)
    view.live.push_back({PeerId(100'000 + i),
                         SessionId(~0ull - i),
                         StageId(1000 + i / kReplicasMax),
                         ReplicaId(i % kReplicasMax),
                         {},
                         {"tcp://[2001:db8:1234:5678:9abc:def0:1234:5678]:49152",
                          "tcp://[2001:db8:1234:5678:9abc:def0:1234:5678]:49153"}});
  EXPECT_LE(kFrameHeaderBytes + encode_body(view).size(), transport::kFrameBytesMax);
}

}  // namespace
}  // namespace isthmus::wire
