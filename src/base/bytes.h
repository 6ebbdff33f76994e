#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace isthmus {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;

// Immutable bytes that several hold, or a part of such: the same payload may stand in custody and in several send
// queues, and a slice of a sum needs no copy. A part keeps the whole alive. Shared because whoever drops it last
// (router or transport) is not known beforehand. Used like a pointer to a view; null by default, and empty then.
class SharedBytes {
 public:
  SharedBytes() = default;
  SharedBytes(std::nullptr_t) {}  // NOLINT(google-explicit-constructor): as a pointer
  explicit SharedBytes(Bytes bytes) : owner_(std::make_shared<const Bytes>(std::move(bytes))), view_(*owner_) {}

  // What was moved from is null, and empty with it.
  SharedBytes(const SharedBytes&) = default;
  SharedBytes& operator=(const SharedBytes&) = default;
  SharedBytes(SharedBytes&& other) noexcept
      : owner_(std::move(other.owner_)), view_(std::exchange(other.view_, ByteView())) {}
  SharedBytes& operator=(SharedBytes&& other) noexcept {
    owner_ = std::move(other.owner_);
    view_ = std::exchange(other.view_, ByteView());
    return *this;
  }

  explicit operator bool() const { return owner_ != nullptr; }
  const ByteView& operator*() const { return view_; }
  const ByteView* operator->() const { return &view_; }
  // The same bytes, wherever they are; null is like null only.
  friend bool operator==(const SharedBytes& a, const SharedBytes& b) {
    return a.owner_ && b.owner_ ? std::ranges::equal(a.view_, b.view_) : !a.owner_ && !b.owner_;
  }
  // What keeps them alive.
  std::shared_ptr<const void> owner() const { return owner_; }

  // REQUIRES: offset + count <= size.
  SharedBytes part(std::size_t offset, std::size_t count) const {
    SharedBytes part = *this;
    part.view_ = view_.subspan(offset, count);
    return part;
  }

 private:
  std::shared_ptr<const Bytes> owner_;
  ByteView view_;
};

inline SharedBytes share(Bytes bytes) { return SharedBytes(std::move(bytes)); }

// What these make, one after the other. A copy, if there are several.
inline SharedBytes joined(const std::vector<SharedBytes>& pieces) {
  if (pieces.size() == 1) return pieces.front();
  std::size_t size = 0;
  for (const auto& piece : pieces) size += piece->size();
  Bytes whole;
  whole.reserve(size);
  for (const auto& piece : pieces) whole.insert(whole.end(), piece->begin(), piece->end());
  return share(std::move(whole));
}

inline ByteView bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

}  // namespace isthmus
