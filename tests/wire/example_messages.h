#pragma once

#include <vector>

#include "protocol/message.h"
#include "wire/message_codec.h"

namespace isthmus::wire {

// A run in which all messages of examples() can be.
inline Limits example_limits() {
  Limits l;
  l.token_bytes = 10;
  l.forward_bytes = 100'000;  // two chunks
  l.backward_bytes = 50;
  l.microbatches = 70;
  l.stages = 4;
  l.members = 8;
  l.part_bytes = 1'000;
  l.total_bytes = 2'000;
  l.units = 12;
  return l;
}

inline protocol::StepTag example_tag() { return {SessionId(~0ull), SessionId(2), EpochId(3), StepId(4), 5}; }

inline SharedBytes filled(std::size_t size, std::uint8_t with) { return share(Bytes(size, with)); }

inline DoneSet example_done() {
  DoneSet done(70);
  done.insert(MicrobatchId(1));
  done.insert(MicrobatchId(69));
  return done;
}

inline protocol::Member example_member(std::uint32_t n) {
  return {PeerId(n),
          SessionId(10 + n),
          StageId(n % 4),
          ReplicaId(n),
          {1, 2, 3, 255, 128, 127},
          {"tcp://192.0.2.1:" + std::to_string(1000 + n), "tcp://[::1]:" + std::to_string(1000 + n)}};
}

// No field as it is by default.
inline protocol::View example_view() {
  protocol::View v;
  v.epoch = EpochId(300);
  v.step = StepId(70'000);
  v.attempt = 5;
  v.since = EpochId(7);
  v.live = {example_member(1), example_member(2)};
  v.gone = {SessionId(12), SessionId(~0ull)};
  v.head_owner = {SessionId(11), kNoSession};
  v.head_again = {false, true};
  v.dealt_again = EpochId(299);
  v.leaving = {SessionId(UINT64_MAX - 1)};
  v.released = true;
  v.vaulted = 41;
  v.absent = {StageId(1), StageId(2)};
  v.last_commit = protocol::Commit{StepId(2), 1, EpochId(8), 0.125, false, {StageId(1)}};
  v.preparing = true;
  v.owners = {{SessionId(11), example_done()}, {SessionId(12), DoneSet(3)}};
  v.last_session = SessionId(1ull << 40);
  v.checkpointed = {0, 2, 65'536, ~0ull};
  v.whole = 2;
  v.phase = protocol::Phase::kStopping;
  v.reason = "interrupted at 3 °C";
  v.suspected = {SessionId(12)};
  v.joining = {example_member(3)};
  v.rollbacks = {4, 3};
  v.replay = {protocol::Commit{StepId(3), 2, EpochId(9), 2.0, true, {}},
              protocol::Commit{StepId(4), 0, EpochId(10), -1e-300, true, {StageId(2)}}};
  v.moved = protocol::Place{StageId(1), ReplicaId(2)};
  v.measure = {4, SessionId(12)};
  v.partners = {example_member(5)};
  return v;
}

inline protocol::Report example_report() {
  protocol::Report r;
  r.session = SessionId(11);
  r.stage = StageId(3);
  r.replica = ReplicaId(2);
  r.endpoints = {"tcp://10.0.0.1:5000", "tcp://10.0.0.1:5001"};
  r.version = protocol::kNoVersion;
  r.step = StepId(9);
  r.attempt = 4;
  r.epoch = EpochId(8);
  r.done = example_done();
  r.prepared_epoch = EpochId(7);
  r.norms = {{"layer.0", 1.5}, {"layer.1", 0.0}};
  r.finite = false;
  r.sum_digest = "0123456789abcdef";
  r.losses = {{MicrobatchId(69), 12.25, 100}, {MicrobatchId(0), -3, 1}};
  r.checkpointed = 200;
  r.weights = {{"head", "abcdef"}};
  r.left = true;
  r.fault = "disk full";
  r.warning = "no checkpoint";
  r.fetching = "snapshot 6, 1 of 4 pieces here: 1 of worker 2";
  r.unrecoverable = "no journal";
  r.timeline = 2;
  r.unreachable = {SessionId(13)};
  r.stats = {1ull << 33, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, "the commit"};
  r.device = {1ull << 34, {seconds(0.1), seconds(0.2), seconds(0.3)}, {}, {Duration(1), Duration(2), Duration(3)}};
  r.link = {{4, SessionId(12)}, std::chrono::milliseconds(31), 79e6, 12.5};
  r.offences = {{SessionId(12), 31, "its numbers are not finite"}};
  r.returned = example_done();
  r.leaving = protocol::Leaving::kFinishing;
  return r;
}

// One of every kind, in the order of Message.
inline std::vector<protocol::Message> examples() {
  using namespace protocol;
  const protocol::StepTag tag = example_tag();
  const SessionId from(11), to(12);
  return {example_view(),
          example_report(),
          Forward{tag, MicrobatchId(1), 2, true, {filled(100'000, 7), filled(10, 9), {4, 7, {1, 2, 3}}}},
          Backward{tag, MicrobatchId(2), {filled(50, 3), nullptr, {4, 300, {0xff}}}},
          Ask{tag, MicrobatchId(3), 1},
          Held{tag, MicrobatchId(4), 1, {5, 6, true}},
          Free{tag, MicrobatchId(5), 1},
          Cancel{tag, MicrobatchId(6), 200},
          Cancelled{tag, MicrobatchId(7), 70'000, {5'000'000'000, 6, false}},
          Busy{tag, MicrobatchId(8), 3, {500, 600, true}},
          TooLate{tag, MicrobatchId(69), 1},
          Probe{tag, 1ull << 50},
          Receipt{tag, kUnasked, {5, 6, true}},
          Part{tag, 3, false, {filled(1'000, 1), nullptr}},
          Total{tag, 8, true, {filled(2'000, 2), nullptr}},
          Fetch{from, to, 1, {PieceKind::kOwnUpdate, 30, 0, 2, 7}},
          Chunk{from,
                to,
                1,
                {PieceKind::kUpdate, 31, 4, 3, 2},
                "abc",
                Commit{StepId(31), 1, EpochId(2), 0.5, false, {StageId(1)}},
                {filled(400, 3), nullptr, {1, 2, {9}}},
                1'000'000},
          Absent{from, to, 1, {PieceKind::kSnapshot, 31, 0, 1}},
          Sounding{from, to, 5, 300, {filled(70'000, 1), nullptr}},
          Echo{to, from, 5, {filled(300, 0), nullptr}},
          TokenRequest{StepId(9), example_done()},
          TokenIds{{StepId(9), MicrobatchId(69)}, {nullptr, filled(10, 4), {0, 0, {7}}}},
          CheckpointRequest{1ull << 33, 2, 70'000},
          CheckpointPiece{{1ull << 33, 2, kPieceBytes + 300, "0123abcd"}, 1, {filled(300, 6), nullptr}}};
}

}  // namespace isthmus::wire
