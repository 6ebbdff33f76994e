#pragma once

#include <algorithm>
#include <cstdint>

#include "base/time.h"

namespace isthmus {

// How much somebody may do: so many at once, and one more each `every`. A bucket of tokens, kept as the moment at which
// it is full again (the virtual scheduling of GCRA, ITU-T I.371).
class RateLimit {
 public:
  struct Rate {
    std::int64_t at_once = 1;
    Duration every{};
  };
  // Whether there is room for one more, which is taken then.
  bool takes(const Rate& rate, Time now) {
    const Time then = std::max(full_at_, now) + rate.every;
    if (then - now > rate.at_once * rate.every) return false;
    full_at_ = then;
    return true;
  }
  // It is as if nothing had ever been taken.
  bool is_full(Time now) const { return full_at_ <= now; }

 private:
  Time full_at_{};
};

}  // namespace isthmus
