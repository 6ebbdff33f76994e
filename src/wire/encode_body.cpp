#include <msgpack.hpp>

#include "base/plain_text.h"
#include "wire/count_fields.h"
#include "wire/message_codec.h"

namespace isthmus::wire {

namespace {

// Writes what docs/protocol.md says about bodies, field by field.
class BodyWriter {
 public:
  template <class T>
  void operator()(const char*, const T& field, auto... bound) {
    put(field, bound...);
  }
  template <class T>
  void flat(const T& part) {
    T::fields(part, *this);
  }

  template <protocol::Listed T>
  void put(const T& value) {
    packer_.pack_array(count_fields(value));
    T::fields(value, *this);
  }

  Bytes take() { return Bytes(buffer_.data(), buffer_.data() + buffer_.size()); }

 private:
  template <class T>
    requires std::is_arithmetic_v<T>
  void put(T value) {
    packer_.pack(value);
  }
  template <class T>
    requires std::is_enum_v<T>
  void put(T value, T /*last*/) {
    packer_.pack(static_cast<std::uint64_t>(value));
  }
  template <class Tag, class Number>
  void put(Id<Tag, Number> id) {
    packer_.pack(id.value);
  }
  void put(Duration time) { packer_.pack(static_cast<std::uint64_t>(time.count())); }
  // Cut, and what the receiver would refuse made plain: a sentence for people is worth more than its last words.
  void put(const std::string& text, protocol::Most most) {
    const std::size_t bytes = Limits::bytes(most);
    if (text.size() <= bytes && is_plain_text(text))
      packer_.pack(text);
    else
      packer_.pack(plain_text(text, bytes));
  }
  template <std::size_t n>
  void put(const std::array<std::uint8_t, n>& bytes) {
    packer_.pack_bin(n);
    packer_.pack_bin_body(reinterpret_cast<const char*>(bytes.data()), n);
  }
  void put(const DoneSet& set) {
    put(set.count());
    put(set.words(), protocol::Most::kMicrobatches);
  }
  // Payload travels behind the body, which has its length.
  void put(const SharedBytes& payload) { packer_.pack(std::uint64_t{payload->size()}); }

  template <class T>
  void put(const std::optional<T>& value) {
    packer_.pack_array(value ? 1 : 0);
    if (value) put(*value);
  }
  template <class T>
  void put(const std::vector<T>& list, protocol::Most) {
    packer_.pack_array(static_cast<std::uint32_t>(list.size()));
    for (const T& element : list) put(element);
  }
  template <class Key>
  void put(const std::map<Key, DoneSet>& sets, protocol::Most) {
    packer_.pack_array(static_cast<std::uint32_t>(sets.size()));
    for (const auto& [key, set] : sets) {
      packer_.pack_array(3);
      put(key);
      put(set);
    }
  }

  msgpack::sbuffer buffer_;
  msgpack::packer<msgpack::sbuffer> packer_{buffer_};
};

}  // namespace

Bytes encode_body(const protocol::Message& message) {
  BodyWriter out;
  std::visit([&](const auto& m) { out.put(m); }, message);
  return out.take();
}

}  // namespace isthmus::wire
