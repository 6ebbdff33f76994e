#include <algorithm>
#include <limits>
#include <utility>

#include "base/replicas_max.h"
#include "wire/count_fields.h"
#include "wire/message_checks.h"
#include "wire/message_codec.h"
#include "wire/pack_reader.h"

namespace isthmus::wire {

namespace {

// Longer than anything that is measured; larger numbers would overflow a Duration.
constexpr std::uint64_t kHourNs = 3'600'000'000'000;

// Reads what BodyWriter (encode_body.cpp) writes, and refuses what this run cannot have.
class BodyReader {
 public:
  BodyReader(ByteView body, const Limits& limits) : in_(body), claimed_{limits} {}

  template <class T>
  void operator()(const char* name, T& field, auto... bound) {
    if (in_.failed()) return;
    get(field, bound...);
    if (in_.failed()) place_ = place_.empty() ? name : fmt::format("{}.{}", name, place_);
  }
  template <class T>
  void flat(T& part) {
    T::fields(part, *this);
    check(part);
  }

  template <protocol::Listed T>
  void get(T& value) {
    const std::uint64_t count = count_fields(value);
    in_.array(count, count);
    flat(value);
  }

  Status finish() {
    in_.end();
    if (!in_.failed()) return {};
    return place_.empty() ? fail("{}", in_.error()) : fail("{}: {}", place_, in_.error());
  }
  const Claimed& claimed() const { return claimed_; }

 private:
  template <class T>
  void check(const T& value) {
    if (in_.failed()) return;
    if (std::string wrong = problem(value, claimed_); !wrong.empty()) in_.refuse(std::move(wrong));
  }

  template <class T>
    requires std::is_unsigned_v<T>
  void get(T& value) {
    value = static_cast<T>(in_.number(std::numeric_limits<T>::max()));
  }
  void get(bool& value) { value = in_.flag(); }
  void get(double& value) { value = in_.real(); }
  template <class T>
    requires std::is_enum_v<T>
  void get(T& value, T last) {
    value = static_cast<T>(in_.number(static_cast<std::uint64_t>(last)));
  }
  template <class Tag, class Number>
  void get(Id<Tag, Number>& id) {
    get(id.value);
  }
  void get(StageId& id) { id.value = below(claimed_.limits.stages); }
  void get(MicrobatchId& id) { id.value = below(claimed_.limits.microbatches); }
  void get(Duration& time) { time = Duration(static_cast<Duration::rep>(in_.number(kHourNs))); }
  void get(std::string& text, protocol::Most most) { text = in_.text(Limits::bytes(most)); }
  template <std::size_t n>
  void get(std::array<std::uint8_t, n>& out) {
    const ByteView bytes = in_.binary(n);
    std::copy_n(bytes.begin(), bytes.size(), out.begin());
  }
  void get(DoneSet& set) {
    const auto count = static_cast<std::uint32_t>(in_.number(claimed_.limits.microbatches));
    const std::uint64_t size = (std::uint64_t{count} + 63) / 64;
    std::vector<std::uint64_t> words(in_.array(size, size));
    for (std::uint64_t& word : words) get(word);
    if (in_.failed()) return;
    if (!DoneSet::valid(count, words)) return in_.refuse("a set has bits beyond its microbatches");
    set = DoneSet(count, std::move(words));
  }
  // The first length in a body is that of the values, the second of the token ids.
  void get(SharedBytes&) {
    (payloads_++ == 0 ? claimed_.values_bytes : claimed_.tokens_bytes) = in_.number(UINT64_MAX);
  }

  template <class T>
  void get(std::optional<T>& value) {
    if (in_.array(0, 1) == 1) get(value.emplace());
  }
  template <class T>
  void get(std::vector<T>& list, protocol::Most most) {
    std::uint32_t left = in_.array(0, claimed_.limits.elements(most));
    list.reserve(std::min<std::uint32_t>(left, 256));  // an element may be a hundred times larger than its bytes
    for (; left > 0 && !in_.failed(); --left) {
      T element{};
      get(element);
      list.push_back(std::move(element));
    }
  }
  template <class Key>
  void get(std::map<Key, DoneSet>& sets, protocol::Most most) {
    for (std::uint32_t left = in_.array(0, claimed_.limits.elements(most)); left > 0 && !in_.failed(); --left) {
      in_.array(3, 3);
      Key key;
      get(key);
      get(sets[key]);
    }
  }

  std::uint32_t below(std::uint32_t end) {
    const std::uint64_t value = in_.number(UINT32_MAX);
    if (value >= end) in_.refuse(fmt::format("{}, expected less than {}", value, end));
    return static_cast<std::uint32_t>(value);
  }

  PackReader in_;
  Claimed claimed_;
  int payloads_ = 0;
  std::string place_;  // of what was refused, from the message down
};

template <class Body>
Result<DecodedBody> decode(ByteView bytes, const Limits& limits) {
  BodyReader in(bytes, limits);
  DecodedBody decoded;
  in.get(decoded.message.emplace<Body>());
  if (auto read = in.finish(); !read) return tl::unexpected(std::move(read.error()));
  decoded.values_bytes = in.claimed().values_bytes;
  decoded.tokens_bytes = in.claimed().tokens_bytes;
  return decoded;
}

using Decode = Result<DecodedBody> (*)(ByteView, const Limits&);
template <class... Body>
constexpr auto decoders(std::type_identity<std::variant<Body...>>) {
  return std::array<Decode, sizeof...(Body)>{&decode<Body>...};
}

}  // namespace

std::size_t Limits::bytes(protocol::Most most) {
  switch (most) {
    case protocol::Most::kDigest:
      return 128;
    case protocol::Most::kAddress:
    case protocol::Most::kNote:
      return 256;
    default:
      return 4096;
  }
}

std::size_t Limits::elements(protocol::Most most) const {
  switch (most) {
    case protocol::Most::kMembers:
      return members;
    case protocol::Most::kStages:
      return stages;
    case protocol::Most::kMicrobatches:
      return microbatches;
    case protocol::Most::kUnits:
      return units;
    default:
      return 1024;
  }
}

Limits Limits::of(const protocol::Plan& plan) {
  Limits limits;
  limits.token_bytes = plan.token_bytes;
  limits.forward_bytes = plan.forward_bytes;
  limits.backward_bytes = plan.backward_bytes;
  limits.microbatches = plan.microbatches + plan.evaluation_microbatches;
  limits.stages = static_cast<std::uint32_t>(plan.stages.size());
  for (const auto& stage : plan.stages) {
    limits.members += std::max(stage.replicas, kReplicasMax);  // seats move and grow
    limits.part_bytes = std::max(limits.part_bytes, stage.parameters * plan.part_width);
    limits.total_bytes = std::max(limits.total_bytes, stage.parameters * plan.total_width);
  }
  // Beside its layers a stage has at most an embedding or what widens the stream, a head or what narrows it, and a
  // basis or a token path (spec/stage_tensors.cpp).
  limits.units = plan.stages.empty() ? 0 : plan.stages.back().end_layer + 3;
  return limits;
}

Result<DecodedBody> decode_body(std::uint8_t kind, ByteView body, const Limits& limits) {
  static constexpr auto kDecoders = decoders(std::type_identity<protocol::Message>());
  if (kind >= kDecoders.size()) return fail("unknown kind {} of message", kind);
  auto decoded = kDecoders[kind](body, limits);
  if (!decoded) return fail("message of kind {} refused: {}", kind, decoded.error().message);
  return decoded;
}

}  // namespace isthmus::wire
