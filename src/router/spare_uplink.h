#pragma once

#include <algorithm>
#include <cstdint>

#include "base/framing.h"
#include "base/time.h"

namespace isthmus::router {

// What training leaves of a worker's uplink, for what can wait: snapshots for those that join, checkpoints for the
// vault. Such a thing leaves when everything sent before it must be through, so a tensor waits for one piece of it at
// most (protocol::kPieceBytes). Where training leaves nothing, it has a tenth of the uplink all the same: somebody who
// joins a run on narrow links shall get there.
class SpareUplink {
 public:
  // The uplink as the run file or its owner says it.
  explicit SpareUplink(double bytes_per_second) : stated_(bytes_per_second) {}

  // To somebody it went no faster than this. Nobody is sure of an uplink that was only assumed: of several
  // measurements the fastest counts, for the others had company.
  void measured(double bytes_per_second) { measured_ = std::max(measured_, bytes_per_second); }
  // Something that does not wait.
  void sent(std::uint64_t bytes, Time now) {
    clear_at_ = std::min(std::max(clear_at_, now) + takes(bytes, 1), now + kBacklogMax);
  }
  // Something that waited until next_at().
  void sent_spare(std::uint64_t bytes, Time now) {
    clear_at_ = std::max(clear_at_, now) + takes(bytes, kShareOfIdle);
    owed_at_ = now + takes(bytes, kShareAlways);
    ++spares_;
  }
  // Things that waited, so far.
  std::uint64_t spares() const { return spares_; }
  // When what can wait may leave. A time that is over: at once.
  Time next_at() const { return std::min(clear_at_, owed_at_); }

 private:
  // A home has other guests, and no measurement is exact.
  static constexpr double kShareOfIdle = 0.9;
  static constexpr double kShareAlways = 0.1;
  // With more, something of what was sent went another way: to this machine, or the one beside it.
  static constexpr Duration kBacklogMax = seconds(5);

  Duration takes(std::uint64_t bytes, double share) const {
    const double rate = measured_ > 0 ? std::min(stated_, measured_) : stated_;
    return seconds(static_cast<double>(bytes) * kFraming / (share * rate));
  }

  double stated_;
  double measured_ = 0;  // nothing yet
  Time clear_at_{};
  Time owed_at_{};
  std::uint64_t spares_ = 0;
};

}  // namespace isthmus::router
