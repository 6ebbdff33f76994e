#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"

namespace isthmus {

// A set of microbatches of one step, as a bitmap.
class DoneSet {
 public:
  DoneSet() = default;
  // Room for microbatches 0 … count-1, none of them in the set.
  explicit DoneSet(std::uint32_t count) : count_(count), words_((count + 63) / 64, 0) {}
  // REQUIRES: words.size() == (count + 63) / 64 and no bit at or above count (see valid()).
  DoneSet(std::uint32_t count, std::vector<std::uint64_t> words) : count_(count), words_(std::move(words)) {}

  static bool valid(std::uint32_t count, const std::vector<std::uint64_t>& words) {
    if (words.size() != (std::size_t{count} + 63) / 64) return false;
    return count % 64 == 0 || words.empty() || (words.back() >> (count % 64)) == 0;
  }

  std::uint32_t count() const { return count_; }
  const std::vector<std::uint64_t>& words() const { return words_; }
  bool contains(MicrobatchId m) const {
    return m.value < count_ && ((words_[m.value / 64] >> (m.value % 64)) & 1u) != 0;
  }
  void insert(MicrobatchId m) {
    if (m.value < count_) words_[m.value / 64] |= std::uint64_t{1} << (m.value % 64);
  }
  std::uint32_t size() const {
    std::uint32_t n = 0;
    for (auto w : words_) n += static_cast<std::uint32_t>(__builtin_popcountll(w));
    return n;
  }
  // Of those below `end`: a step's training microbatches come before those of its evaluation.
  std::uint32_t size_below(std::uint32_t end) const {
    std::uint32_t n = 0;
    for (std::uint32_t m = 0; m < end; ++m) n += contains(MicrobatchId(m));
    return n;
  }
  bool full() const { return size() == count_; }
  // True if this set got an element of `other` that it did not have.
  bool merge(const DoneSet& other) {
    bool grew = false;
    for (std::size_t i = 0; i < words_.size() && i < other.words_.size(); ++i) {
      grew = grew || (other.words_[i] & ~words_[i]) != 0;
      words_[i] |= other.words_[i];
    }
    return grew;
  }
  // What is in this set and not in `other`. REQUIRES: equal counts.
  DoneSet without(const DoneSet& other) const {
    DoneSet rest = *this;
    for (std::size_t i = 0; i < words_.size(); ++i) rest.words_[i] &= ~other.words_[i];
    return rest;
  }
  friend bool operator==(const DoneSet&, const DoneSet&) = default;

 private:
  std::uint32_t count_ = 0;
  std::vector<std::uint64_t> words_;
};

}  // namespace isthmus
