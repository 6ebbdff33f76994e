#pragma once

#include <cstdint>

#include "base/done_set.h"
#include "protocol/fields.h"

namespace isthmus::wire {

// Elements of the array that a struct becomes in a body: one for each field, two for a set of microbatches.
class FieldCount {
 public:
  void operator()(const char*, const auto&, auto...) { ++count_; }
  void operator()(const char*, const DoneSet&) { count_ += 2; }
  template <class T>
  void flat(const T& part) {
    T::fields(part, *this);
  }
  std::uint32_t count() const { return count_; }

 private:
  std::uint32_t count_ = 0;
};

template <protocol::Listed T>
std::uint32_t count_fields(const T& value) {
  FieldCount fields;
  T::fields(value, fields);
  return fields.count();
}

}  // namespace isthmus::wire
