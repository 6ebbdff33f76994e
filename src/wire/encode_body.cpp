#include <msgpack.hpp>

#include "wire/message_codec.h"

namespace isthmus {

namespace {

class Writer {
 public:
  void array(std::size_t size) { packer_.pack_array(static_cast<std::uint32_t>(size)); }
  void number(std::uint64_t value) { packer_.pack(value); }
  void real(double value) { packer_.pack(value); }
  void flag(bool value) { packer_.pack(value); }
  void text(const std::string& value) { packer_.pack(value.substr(0, kTextMax)); }
  void key(const PublicKey& value) {
    packer_.pack_bin(static_cast<std::uint32_t>(value.size()));
    packer_.pack_bin_body(reinterpret_cast<const char*>(value.data()), static_cast<std::uint32_t>(value.size()));
  }
  template <class Tag, class Number>
  void id(Id<Tag, Number> value) {
    number(value.value);
  }
  Bytes take() { return Bytes(buffer_.data(), buffer_.data() + buffer_.size()); }

 private:
  msgpack::sbuffer buffer_;
  msgpack::packer<msgpack::sbuffer> packer_{buffer_};
};

void write(Writer& out, const Endpoints& e) {
  out.text(e.control);
  out.text(e.bulk);
}

void write(Writer& out, const DoneSet& set) {
  out.number(set.count());
  out.array(set.words().size());
  for (const auto word : set.words()) out.number(word);
}

void write(Writer& out, const StepTag& tag) {
  out.id(tag.from);
  out.id(tag.to);
  out.id(tag.epoch);
  out.id(tag.step);
  out.number(tag.attempt);
}

std::uint64_t size_of(const SharedBytes& bytes) { return bytes ? bytes->size() : 0; }

void write(Writer& out, const Member& m) {
  out.array(7);
  out.id(m.peer);
  out.id(m.session);
  out.id(m.stage);
  out.id(m.replica);
  out.key(m.key);
  write(out, m.endpoints);
}

void write(Writer& out, const std::vector<StageId>& stages) {
  out.array(stages.size());
  for (const auto stage : stages) out.id(stage);
}

void write(Writer& out, const Commit& c) {
  out.array(6);
  out.id(c.step);
  out.number(c.attempt);
  out.id(c.epoch);
  out.real(c.scale);
  out.flag(c.apply);
  write(out, c.absent);
}

void write(Writer& out, const Load& load) {
  out.number(load.backlog_us);
  out.number(load.service_us);
  out.flag(load.slow);
}

void write(Writer& out, const LinkOrder& order) {
  out.number(order.number);
  out.id(order.to);
}

void write(Writer& out, const DeviceFigures& d) {
  out.array(10);
  out.number(d.memory_bytes);
  for (const OperationCosts& part : {d.layer, d.embedding, d.head})
    for (const Duration time : {part.forward, part.input_gradient, part.weight_gradient}) out.number(static_cast<std::uint64_t>(time.count()));
}

void write(Writer& out, const LinkFigures& link) {
  out.array(5);
  write(out, link.order);
  out.number(static_cast<std::uint64_t>(link.latency.count()));
  out.real(link.sent_bits_per_second);
  out.real(link.received_bits_per_second);
}

void write(Writer& out, const View& v) {
  out.array(25);
  out.id(v.epoch);
  out.id(v.step);
  out.number(v.attempt);
  out.id(v.since);
  out.array(v.live.size());
  for (const auto& m : v.live) write(out, m);
  out.array(v.gone.size());
  for (const auto session : v.gone) out.id(session);
  out.array(v.head_owner.size());
  for (const auto owner : v.head_owner) out.id(owner);
  out.array(v.head_again.size());
  for (const bool again : v.head_again) out.flag(again);
  write(out, v.absent);
  out.array(v.last_commit ? 1 : 0);
  if (v.last_commit) write(out, *v.last_commit);
  out.flag(v.preparing);
  out.array(v.owners.size());
  for (const auto& [session, done] : v.owners) {
    out.array(3);
    out.id(session);
    write(out, done);
  }
  out.id(v.last_session);
  out.array(v.checkpointed.size());
  for (const auto version : v.checkpointed) out.number(version);
  out.number(static_cast<std::uint64_t>(v.phase));
  out.text(v.reason);
  out.array(v.suspected.size());
  for (const auto session : v.suspected) out.id(session);
  out.array(v.joining.size());
  for (const auto& m : v.joining) write(out, m);
  out.array(v.rollbacks.size());
  for (const auto version : v.rollbacks) out.number(version);
  out.array(v.replay.size());
  for (const auto& commit : v.replay) write(out, commit);
  out.array(v.moved ? 2 : 0);
  if (v.moved) {
    out.id(v.moved->stage);
    out.id(v.moved->replica);
  }
  write(out, v.measure);
  out.array(v.partners.size());
  for (const auto& m : v.partners) write(out, m);
  out.id(v.dealt_again);
}

void write(Writer& out, const Report& r) {
  out.array(31);
  out.id(r.session);
  out.id(r.stage);
  out.id(r.replica);
  write(out, r.endpoints);
  out.number(r.version);
  out.id(r.step);
  out.number(r.attempt);
  out.id(r.epoch);
  write(out, r.done);
  out.id(r.prepared_epoch);
  out.array(r.norms.size());
  for (const auto& unit : r.norms) {
    out.array(2);
    out.text(unit.unit);
    out.real(unit.norm2);
  }
  out.flag(r.finite);
  out.text(r.sum_digest);
  out.array(r.losses.size());
  for (const auto& loss : r.losses) {
    out.array(3);
    out.id(loss.microbatch);
    out.real(loss.sum);
    out.number(loss.tokens);
  }
  out.number(r.checkpointed);
  out.array(r.weights.size());
  for (const auto& unit : r.weights) {
    out.array(2);
    out.text(unit.unit);
    out.text(unit.hex);
  }
  out.flag(r.left);
  out.text(r.fault);
  out.text(r.warning);
  out.text(r.fetching);
  out.text(r.unrecoverable);
  out.number(r.timeline);
  out.array(r.unreachable.size());
  for (const auto session : r.unreachable) out.id(session);
  const auto& s = r.stats;
  out.array(14);
  for (const std::uint64_t n : {s.forward_ns, s.input_gradient_ns, s.weight_gradient_ns, s.optimizer_ns,
                                s.boundary_bytes_sent, s.boundary_bytes_received, s.control_bytes_sent,
                                s.control_bytes_received, s.rejected_frames, s.sync_bytes_sent,
                                s.state_bytes_sent, s.service_us, std::uint64_t{s.queued}})
    out.number(n);
  out.text(s.waiting_for);
  write(out, r.device);
  write(out, r.link);
  out.array(r.offences.size());
  for (const auto& offence : r.offences) {
    out.array(3);
    out.id(offence.session);
    out.number(offence.version);
    out.text(offence.what);
  }
  write(out, r.returned);
}

void write(Writer& out, const Forward& f) {
  out.array(10);
  write(out, f.tag);
  out.id(f.microbatch);
  out.number(f.n);
  out.flag(f.again);
  out.number(size_of(f.tensor.values));
  out.number(size_of(f.tensor.tokens));
}

void write(Writer& out, const Backward& b) {
  out.array(7);
  write(out, b.tag);
  out.id(b.microbatch);
  out.number(size_of(b.tensor.values));
}

template <Numbered Body>
void write(Writer& out, const Body& message) {
  out.array(Loaded<Body> ? 10 : 7);
  write(out, message.tag);
  out.id(message.microbatch);
  out.number(message.n);
  if constexpr (Loaded<Body>) write(out, message.load);
}

void write(Writer& out, const Probe& p) {
  out.array(6);
  write(out, p.tag);
  out.number(p.sent_us);
}
void write(Writer& out, const Receipt& r) {
  out.array(9);
  write(out, r.tag);
  out.number(r.sent_us);
  write(out, r.load);
}

void write(Writer& out, const Sounding& s) {
  out.array(5);
  out.id(s.from);
  out.id(s.to);
  out.number(s.serial);
  out.number(s.reply_bytes);
  out.number(size_of(s.tensor.values));
}
void write(Writer& out, const Echo& e) {
  out.array(4);
  out.id(e.from);
  out.id(e.to);
  out.number(e.serial);
  out.number(size_of(e.tensor.values));
}

template <class Sum>
void write_sum(Writer& out, const Sum& sum) {
  out.array(8);
  write(out, sum.tag);
  out.number(sum.slice);
  out.flag(sum.finite);
  out.number(size_of(sum.tensor.values));
}
void write(Writer& out, const Part& part) { write_sum(out, part); }
void write(Writer& out, const Total& total) { write_sum(out, total); }

template <OfState Body>
void write(Writer& out, const Body& message) {
  constexpr bool chunk = std::is_same_v<Body, Chunk>;
  out.array(chunk ? 13 : 8);
  out.id(message.from);
  out.id(message.to);
  out.number(message.timeline);
  out.number(static_cast<std::uint64_t>(message.piece.kind));
  out.number(message.piece.version);
  out.number(message.piece.attempt);
  out.number(message.piece.slice);
  out.number(message.piece.index);
  if constexpr (chunk) {
    out.text(message.digest);
    out.number(message.whole);
    write(out, message.commit);
    out.number(size_of(message.tensor.values));
    out.number(size_of(message.tensor.tokens));
  }
}

}  // namespace

Bytes encode_body(const Message& message) {
  Writer out;
  std::visit([&](const auto& m) { write(out, m); }, message);
  return out.take();
}

}  // namespace isthmus
