#include <algorithm>
#include <cmath>
#include <msgpack.hpp>
#include <stdexcept>

#include "wire/message_codec.h"

namespace isthmus {

namespace {

constexpr std::size_t kDigestMax = 128;
constexpr std::size_t kReplayMax = 1024;
// Longer than anything that is measured; larger numbers would overflow a Duration.
constexpr std::uint64_t kHourNs = 3'600'000'000'000;
constexpr double kBitsPerSecondMax = 1e12;

// Takes the elements of one msgpack array in order. Anything unexpected throws; decode_body turns that into an Error.
class Reader {
 public:
  Reader(const msgpack::object& object, std::size_t min, std::size_t max) {
    if (object.type != msgpack::type::ARRAY || object.via.array.size < min || object.via.array.size > max)
      throw std::runtime_error(fmt::format("expected an array of {} to {} elements", min, max));
    at_ = object.via.array.ptr;
    end_ = at_ + object.via.array.size;
  }
  bool done() const { return at_ == end_; }
  std::size_t left() const { return static_cast<std::size_t>(end_ - at_); }

  std::uint64_t number(std::uint64_t max = UINT64_MAX) {
    const auto& o = next();
    if (o.type != msgpack::type::POSITIVE_INTEGER || o.via.u64 > max)
      throw std::runtime_error(fmt::format("expected a number up to {}", max));
    return o.via.u64;
  }
  double real() {
    const auto& o = next();
    // The packer writes a whole number as one.
    if (o.type == msgpack::type::POSITIVE_INTEGER) return static_cast<double>(o.via.u64);
    if (o.type == msgpack::type::NEGATIVE_INTEGER) return static_cast<double>(o.via.i64);
    if (o.type != msgpack::type::FLOAT64 && o.type != msgpack::type::FLOAT32)
      throw std::runtime_error("expected a real number");
    return o.via.f64;
  }
  bool flag() {
    const auto& o = next();
    if (o.type != msgpack::type::BOOLEAN) throw std::runtime_error("expected true or false");
    return o.via.boolean;
  }
  std::string text(std::size_t max = kTextMax) {
    const auto& o = next();
    if (o.type != msgpack::type::STR || o.via.str.size > max)
      throw std::runtime_error(fmt::format("expected a text of at most {} bytes", max));
    return {o.via.str.ptr, o.via.str.size};
  }
  PublicKey key() {
    const auto& o = next();
    PublicKey key{};
    if (o.type != msgpack::type::BIN || o.via.bin.size != key.size())
      throw std::runtime_error("expected a key of 32 bytes");
    std::copy_n(reinterpret_cast<const std::uint8_t*>(o.via.bin.ptr), key.size(), key.begin());
    return key;
  }
  Reader array(std::size_t min, std::size_t max) { return Reader(next(), min, max); }
  template <class IdType>
  IdType id(std::uint64_t max = UINT64_MAX) {
    using Number = typename IdType::number_type;
    return IdType(static_cast<Number>(number(std::min<std::uint64_t>(max, static_cast<Number>(-1)))));
  }

 private:
  const msgpack::object& next() {
    if (done()) throw std::runtime_error("an element is missing");
    return *at_++;
  }
  const msgpack::object* at_;
  const msgpack::object* end_;
};

Endpoints read_endpoints(Reader& in) {
  Endpoints e;
  e.control = in.text(256);
  e.bulk = in.text(256);
  return e;
}

DoneSet read_done(Reader& in, const Limits& limits) {
  const auto count = static_cast<std::uint32_t>(in.number(limits.microbatches));
  auto words = in.array(0, limits.microbatches / 64 + 1);
  std::vector<std::uint64_t> bits;
  while (!words.done()) bits.push_back(words.number());
  if (!DoneSet::valid(count, bits)) throw std::runtime_error("a done set has bits beyond its microbatches");
  return DoneSet(count, std::move(bits));
}

StepTag read_tag(Reader& in) {
  StepTag tag;
  tag.from = in.id<SessionId>();
  tag.to = in.id<SessionId>();
  tag.epoch = in.id<EpochId>();
  tag.step = in.id<StepId>();
  tag.attempt = static_cast<std::uint32_t>(in.number(UINT32_MAX));
  return tag;
}

Member read_member(Reader& in, const Limits& limits) {
  auto m = in.array(7, 7);
  Member member;
  member.peer = m.id<PeerId>();
  member.session = m.id<SessionId>();
  member.stage = m.id<StageId>(limits.stages - 1);
  member.replica = m.id<ReplicaId>();
  member.key = m.key();
  member.endpoints = read_endpoints(m);
  return member;
}

std::vector<StageId> read_absent(Reader& in, const Limits& limits) {
  std::vector<StageId> stages;
  for (auto list = in.array(0, limits.stages); !list.done();) {
    stages.push_back(list.id<StageId>(limits.stages - 1));
    // A path without an end would be followed for ever.
    if (stages.back() == StageId(0) || stages.back().value + 1 == limits.stages) throw std::runtime_error("the first or the last stage is said to be absent");
  }
  return stages;
}

Commit read_commit(Reader& in, const Limits& limits) {
  auto c = in.array(6, 6);
  Commit commit;
  commit.step = c.id<StepId>();
  commit.attempt = static_cast<std::uint32_t>(c.number(UINT32_MAX));
  commit.epoch = c.id<EpochId>();
  commit.scale = c.real();
  commit.apply = c.flag();
  commit.absent = read_absent(c, limits);
  if (!std::isfinite(commit.scale)) throw std::runtime_error("a commit's scale is not finite");
  return commit;
}

Load read_load(Reader& in) {
  // A day is more than anything here takes; larger numbers would overflow a Duration.
  constexpr std::uint64_t kDayUs = 86'400'000'000;
  Load load;
  load.backlog_us = in.number(kDayUs);
  load.service_us = in.number(kDayUs);
  load.slow = in.flag();
  return load;
}

LinkOrder read_order(Reader& in) {
  LinkOrder order;
  order.number = static_cast<std::uint32_t>(in.number(UINT32_MAX));
  order.to = in.id<SessionId>();
  return order;
}

DeviceFigures read_device(Reader& in) {
  auto d = in.array(10, 10);
  DeviceFigures device;
  device.memory_bytes = d.number();
  for (OperationCosts* part : {&device.layer, &device.embedding, &device.head})
    for (Duration* time : {&part->forward, &part->input_gradient, &part->weight_gradient}) *time = Duration(static_cast<Duration::rep>(d.number(kHourNs)));
  return device;
}

double read_rate(Reader& in) {
  const double rate = in.real();
  if (!(rate >= 0 && rate <= kBitsPerSecondMax)) throw std::runtime_error(fmt::format("expected a rate up to {} bits per second", kBitsPerSecondMax));
  return rate;
}

LinkFigures read_link(Reader& in) {
  auto l = in.array(5, 5);
  LinkFigures link;
  link.order = read_order(l);
  link.latency = Duration(static_cast<Duration::rep>(l.number(kHourNs)));
  link.sent_bits_per_second = read_rate(l);
  link.received_bits_per_second = read_rate(l);
  return link;
}

View read_view(const msgpack::object& object, const Limits& limits) {
  Reader in(object, 25, 25);
  View v;
  v.epoch = in.id<EpochId>();
  v.step = in.id<StepId>();
  v.attempt = static_cast<std::uint32_t>(in.number(UINT32_MAX));
  v.since = in.id<EpochId>(v.epoch.value);
  for (auto live = in.array(0, limits.members); !live.done();) v.live.push_back(read_member(live, limits));
  for (auto gone = in.array(0, limits.members); !gone.done();) v.gone.push_back(gone.id<SessionId>());
  for (auto owners = in.array(0, limits.microbatches); !owners.done();)
    v.head_owner.push_back(owners.id<SessionId>());
  for (auto again = in.array(0, limits.microbatches); !again.done();) v.head_again.push_back(again.flag());
  if (v.head_again.size() != v.head_owner.size()) throw std::runtime_error("head owners and flags differ in number");
  v.absent = read_absent(in, limits);
  if (auto c = in.array(0, 1); !c.done()) v.last_commit = read_commit(c, limits);
  v.preparing = in.flag();
  for (auto owners = in.array(0, limits.members); !owners.done();) {
    auto o = owners.array(3, 3);
    const auto session = o.id<SessionId>();
    v.owners.emplace(session, read_done(o, limits));
  }
  v.last_session = in.id<SessionId>();
  for (auto versions = in.array(0, limits.stages); !versions.done();) v.checkpointed.push_back(versions.number());
  v.phase = static_cast<Phase>(in.number(static_cast<std::uint64_t>(Phase::kEnded)));
  v.reason = in.text();
  for (auto suspected = in.array(0, limits.members); !suspected.done();) v.suspected.push_back(suspected.id<SessionId>());
  for (auto joining = in.array(0, limits.members); !joining.done();) v.joining.push_back(read_member(joining, limits));
  for (auto rollbacks = in.array(0, kReplayMax); !rollbacks.done();) v.rollbacks.push_back(rollbacks.number());
  for (auto replay = in.array(0, kReplayMax); !replay.done();) v.replay.push_back(read_commit(replay, limits));
  if (auto moved = in.array(0, 2); !moved.done()) {
    const auto stage = moved.id<StageId>(limits.stages - 1);
    v.moved = Place{stage, moved.id<ReplicaId>()};
  }
  v.measure = read_order(in);
  for (auto partners = in.array(0, limits.members); !partners.done();) v.partners.push_back(read_member(partners, limits));
  v.dealt_again = in.id<EpochId>(v.epoch.value);
  return v;
}

Report read_report(const msgpack::object& object, const Limits& limits) {
  Reader in(object, 31, 31);
  Report r;
  r.session = in.id<SessionId>();
  r.stage = in.id<StageId>(limits.stages - 1);
  r.replica = in.id<ReplicaId>();
  r.endpoints = read_endpoints(in);
  r.version = in.number();
  r.step = in.id<StepId>();
  r.attempt = static_cast<std::uint32_t>(in.number(UINT32_MAX));
  r.epoch = in.id<EpochId>();
  r.done = read_done(in, limits);
  r.prepared_epoch = in.id<EpochId>();
  for (auto norms = in.array(0, limits.units); !norms.done();) {
    auto unit = norms.array(2, 2);
    std::string name = unit.text(kDigestMax);
    r.norms.push_back({std::move(name), unit.real()});
  }
  r.finite = in.flag();
  r.sum_digest = in.text(kDigestMax);
  for (auto losses = in.array(0, limits.microbatches); !losses.done();) {
    auto l = losses.array(3, 3);
    MicrobatchLoss loss;
    loss.microbatch = l.id<MicrobatchId>(limits.microbatches - 1);
    loss.sum = l.real();
    loss.tokens = static_cast<std::uint32_t>(l.number(UINT32_MAX));
    r.losses.push_back(loss);
  }
  r.checkpointed = in.number();
  for (auto weights = in.array(0, limits.units); !weights.done();) {
    auto unit = weights.array(2, 2);
    std::string name = unit.text(kDigestMax);
    r.weights.push_back({std::move(name), unit.text(kDigestMax)});
  }
  r.left = in.flag();
  r.fault = in.text();
  r.warning = in.text();
  r.fetching = in.text();
  r.unrecoverable = in.text();
  r.timeline = static_cast<std::uint32_t>(in.number(UINT32_MAX));
  for (auto sessions = in.array(0, limits.members); !sessions.done();) r.unreachable.push_back(sessions.id<SessionId>());
  auto s = in.array(14, 14);
  for (std::uint64_t* n : {&r.stats.forward_ns, &r.stats.input_gradient_ns, &r.stats.weight_gradient_ns,
                           &r.stats.optimizer_ns, &r.stats.boundary_bytes_sent, &r.stats.boundary_bytes_received,
                           &r.stats.control_bytes_sent, &r.stats.control_bytes_received, &r.stats.rejected_frames, &r.stats.sync_bytes_sent,
                           &r.stats.state_bytes_sent, &r.stats.service_us})
    *n = s.number();
  r.stats.queued = static_cast<std::uint32_t>(s.number(UINT32_MAX));
  r.stats.waiting_for = s.text(256);
  r.device = read_device(in);
  r.link = read_link(in);
  for (auto offences = in.array(0, limits.members); !offences.done();) {
    auto o = offences.array(3, 3);
    Offence offence;
    offence.session = o.id<SessionId>();
    offence.version = o.number();
    offence.what = o.text(256);
    r.offences.push_back(std::move(offence));
  }
  r.returned = read_done(in, limits);
  return r;
}

std::uint64_t exactly(std::uint64_t seen, std::uint64_t expected, const char* what) {
  if (seen != expected)
    throw std::runtime_error(fmt::format("{} of {} bytes, the plan says {}", what, seen, expected));
  return seen;
}

std::uint64_t at_most(std::uint64_t seen, std::uint64_t limit, const char* what) {
  if (seen > limit) throw std::runtime_error(fmt::format("{} of {} bytes, the plan allows {}", what, seen, limit));
  return seen;
}

template <class Body>
DecodedBody read_sum(const msgpack::object& object, const Limits& limits, std::uint64_t bytes) {
  Reader in(object, 8, 8);
  DecodedBody decoded;
  Body sum;
  sum.tag = read_tag(in);
  sum.slice = static_cast<std::uint32_t>(in.number(limits.members));
  sum.finite = in.flag();
  decoded.values_bytes = at_most(in.number(), bytes, "a slice of a gradient");
  decoded.message = std::move(sum);
  return decoded;
}

template <class Body>
Body read_piece(Reader& in, const Limits& limits) {
  Body message;
  message.from = in.id<SessionId>();
  message.to = in.id<SessionId>();
  message.timeline = static_cast<std::uint32_t>(in.number(UINT32_MAX));
  message.piece.kind = static_cast<PieceKind>(in.number(static_cast<std::uint64_t>(PieceKind::kVerdict)));
  message.piece.version = in.number();
  message.piece.attempt = static_cast<std::uint32_t>(in.number(UINT32_MAX));
  message.piece.slice = static_cast<std::uint32_t>(in.number(UINT32_MAX));
  const bool journal = message.piece.kind == PieceKind::kInput || message.piece.kind == PieceKind::kGradient;
  message.piece.index = static_cast<std::uint32_t>(in.number(journal ? limits.microbatches - 1 : UINT32_MAX));
  return message;
}

DecodedBody read_chunk(const msgpack::object& object, const Limits& limits) {
  Reader in(object, 13, 13);
  DecodedBody decoded;
  auto chunk = read_piece<Chunk>(in, limits);
  chunk.digest = in.text(kDigestMax);
  chunk.whole = in.number();
  chunk.commit = read_commit(in, limits);
  const std::uint64_t values = in.number(), tokens = in.number();
  switch (chunk.piece.kind) {
    case PieceKind::kSnapshot:
    case PieceKind::kUpdate:
    case PieceKind::kOwnUpdate:
    case PieceKind::kAgreement:
    case PieceKind::kVerdict:
      decoded.values_bytes = at_most(values, kPieceBytes, "a piece of a state");
      exactly(tokens, 0, "token ids");
      break;
    case PieceKind::kInput:
      decoded.values_bytes = exactly(values, limits.forward_bytes, "coefficients");
      decoded.tokens_bytes = exactly(tokens, limits.token_bytes, "token ids");
      break;
    case PieceKind::kGradient:
      decoded.values_bytes = exactly(values, limits.backward_bytes, "gradients");
      exactly(tokens, 0, "token ids");
      break;
  }
  decoded.message = std::move(chunk);
  return decoded;
}

template <Numbered Body>
Message read_numbered(const msgpack::object& object, const Limits& limits) {
  Reader in(object, Loaded<Body> ? 10 : 7, Loaded<Body> ? 10 : 7);
  Body message;
  message.tag = read_tag(in);
  message.microbatch = in.id<MicrobatchId>(limits.microbatches - 1);
  message.n = static_cast<std::uint32_t>(in.number(UINT32_MAX));
  if constexpr (Loaded<Body>) message.load = read_load(in);
  return message;
}

DecodedBody read(std::uint8_t kind, const msgpack::object& object, const Limits& limits) {
  DecodedBody decoded;
  switch (kind) {
    case 0:
      decoded.message = read_view(object, limits);
      break;
    case 1:
      decoded.message = read_report(object, limits);
      break;
    case 2: {
      Reader in(object, 10, 10);
      Forward f;
      f.tag = read_tag(in);
      f.microbatch = in.id<MicrobatchId>(limits.microbatches - 1);
      f.n = static_cast<std::uint32_t>(in.number(UINT32_MAX));
      f.again = in.flag();
      decoded.values_bytes = exactly(in.number(), limits.forward_bytes, "coefficients");
      decoded.tokens_bytes = exactly(in.number(), limits.token_bytes, "token ids");
      decoded.message = std::move(f);
      break;
    }
    case 3: {
      Reader in(object, 7, 7);
      Backward b;
      b.tag = read_tag(in);
      b.microbatch = in.id<MicrobatchId>(limits.microbatches - 1);
      decoded.values_bytes = exactly(in.number(), limits.backward_bytes, "gradients");
      decoded.message = std::move(b);
      break;
    }
    case 4:
      decoded.message = read_numbered<Ask>(object, limits);
      break;
    case 5:
      decoded.message = read_numbered<Held>(object, limits);
      break;
    case 6:
      decoded.message = read_numbered<Free>(object, limits);
      break;
    case 7:
      decoded.message = read_numbered<Cancel>(object, limits);
      break;
    case 8:
      decoded.message = read_numbered<Cancelled>(object, limits);
      break;
    case 9:
      decoded.message = read_numbered<Busy>(object, limits);
      break;
    case 10:
      decoded.message = read_numbered<TooLate>(object, limits);
      break;
    case 11: {
      Reader in(object, 6, 6);
      Probe probe;
      probe.tag = read_tag(in);
      probe.sent_us = in.number();
      decoded.message = probe;
      break;
    }
    case 12: {
      Reader in(object, 9, 9);
      Receipt receipt;
      receipt.tag = read_tag(in);
      receipt.sent_us = in.number();
      receipt.load = read_load(in);
      decoded.message = receipt;
      break;
    }
    case 13:
      return read_sum<Part>(object, limits, limits.part_bytes);
    case 14:
      return read_sum<Total>(object, limits, limits.total_bytes);
    case 15: {
      Reader in(object, 8, 8);
      decoded.message = read_piece<Fetch>(in, limits);
      break;
    }
    case 16:
      return read_chunk(object, limits);
    case 17: {
      Reader in(object, 8, 8);
      decoded.message = read_piece<Absent>(in, limits);
      break;
    }
    case 18: {
      Reader in(object, 5, 5);
      Sounding s;
      s.from = in.id<SessionId>();
      s.to = in.id<SessionId>();
      s.serial = static_cast<std::uint32_t>(in.number(UINT32_MAX));
      s.reply_bytes = at_most(in.number(), kSoundingBytes, "an answer to a sounding");
      decoded.values_bytes = at_most(in.number(), kSoundingBytes, "a sounding");
      decoded.message = std::move(s);
      break;
    }
    case 19: {
      Reader in(object, 4, 4);
      Echo e;
      e.from = in.id<SessionId>();
      e.to = in.id<SessionId>();
      e.serial = static_cast<std::uint32_t>(in.number(UINT32_MAX));
      decoded.values_bytes = at_most(in.number(), kSoundingBytes, "an echo");
      decoded.message = std::move(e);
      break;
    }
    default:
      throw std::runtime_error(fmt::format("unknown kind {}", kind));
  }
  return decoded;
}

}  // namespace

Limits Limits::of(const Plan& plan) {
  Limits limits;
  limits.token_bytes = plan.token_bytes;
  limits.forward_bytes = plan.forward_bytes;
  limits.backward_bytes = plan.backward_bytes;
  limits.microbatches = plan.microbatches + plan.evaluation_microbatches;
  limits.stages = static_cast<std::uint32_t>(plan.stages.size());
  for (const auto& stage : plan.stages) {
    limits.members += stage.replicas;
    limits.part_bytes = std::max(limits.part_bytes, stage.parameters * plan.part_width);
    limits.total_bytes = std::max(limits.total_bytes, stage.parameters * plan.total_width);
  }
  // Beside its layers a stage has at most an embedding or what widens the stream, a head or what narrows it, and a basis or a token
  // path (config/stage_tensors.cpp).
  limits.units = plan.stages.empty() ? 0 : plan.stages.back().end_layer + 3;
  return limits;
}

Result<DecodedBody> decode_body(std::uint8_t kind, ByteView body, const Limits& limits) {
  try {
    const std::size_t array_max = std::max<std::size_t>({kReplayMax, limits.microbatches, limits.members, limits.units, limits.stages});
    const msgpack::unpack_limit bounds(array_max, 0, kTextMax, 64, 0, 8);
    std::size_t offset = 0;
    const auto handle = msgpack::unpack(reinterpret_cast<const char*>(body.data()), body.size(), offset, nullptr,
                                        nullptr, bounds);
    if (offset != body.size()) return fail("message body has {} bytes too many", body.size() - offset);
    return read(kind, handle.get(), limits);
  } catch (const std::exception& error) {
    return fail("message of kind {} refused: {}", kind, error.what());
  }
}

}  // namespace isthmus
