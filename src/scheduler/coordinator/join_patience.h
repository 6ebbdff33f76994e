#pragma once

#include <map>
#include <vector>

#include "base/ids.h"
#include "base/time.h"

namespace isthmus::coordinator {

// For how long finished steps wait for joiners that have almost caught up: for each of them `most` at once; if that was
// in vain, as long again after a pause of `most`, and so on after pauses of twice the length, at most ten times `most`.
// A joiner that only lacks a moment gets in soon, and one that never does costs an eleventh of the time in the long
// run.
class JoinPatience {
 public:
  explicit JoinPatience(Duration most) : most_(most) {}

  // A finished step could go on, but for the candidates `near`. True: it waits, and this is asked again.
  bool waits(const std::vector<SessionId>& near, Time now);

 private:
  struct Wait {
    Time until;
    Duration pause;  // after it
  };

  Duration most_;
  std::map<SessionId, Wait> newest_;  // of each that was near
};

}  // namespace isthmus::coordinator
