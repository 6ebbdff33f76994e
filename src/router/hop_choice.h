#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/message.h"
#include "protocol/plan.h"
#include "protocol/view.h"

namespace isthmus::router {

// Time of a message on a link as α + β·bytes, by the Theil–Sen estimator (the median of all pairwise slopes): a third
// of the samples may be outliers. Bytes include what was queued before the message.
class LinkEstimate {
 public:
  void sample(std::uint64_t bytes, Duration time);
  // Zero until something was measured.
  Duration latency() const { return latency_; }
  double seconds_per_byte() const { return seconds_per_byte_; }

 private:
  void fit();
  struct Sample {
    double bytes;
    double seconds;
  };
  std::deque<Sample> samples_;
  Duration latency_{};
  double seconds_per_byte_ = 0;
};

// Which replica of the next stage on its path gets a microbatch: the one with the smallest virtual finish time (SWARM,
// Ryabinin et al., ICML 2023, with the link in it): ready + bytes / uplink + latency + compute. A choice is charged at
// once and corrected by the receiver's next receipt; what was refused or cancelled is given back. Pure; one thread.
class HopChoice {
 public:
  // `self`: the replica that chooses. Replicas of one stage do not know of each other's choices, so where there is
  // little to choose each begins with another replica of the next stage.
  explicit HopChoice(protocol::Routing routing = protocol::Routing::kFinishTime, ReplicaId self = {})
      : routing_(routing), self_(self) {}

  // The live replicas; gone ones are forgotten. A newcomer starts at the median load of the others.
  // Returns the newcomers: each wants one probe.
  std::vector<SessionId> set_members(const std::vector<const protocol::Member*>& members, Time now);

  // REQUIRES: `among` are members, and not empty. Suspected ones only if there are no others. `avoid`: not this one, if
  // there is another.
  SessionId choose(const std::vector<const protocol::Member*>& among, const std::vector<SessionId>& suspected,
                   std::uint64_t bytes, Time now, SessionId avoid = kNoSession);
  void charge(SessionId session, std::uint64_t bytes, Time now);
  // The microbatch, which its receiver's last word counted, went elsewhere.
  void give_back(SessionId session);
  // The receiver holds it (or will not): what it says about itself counts from now on.
  void receipt(SessionId session, const protocol::Load& load, Time now);
  // One answer took this long; the bytes are those sent to anybody and not confirmed when the message was sent.
  void measured(SessionId session, std::uint64_t bytes, Duration time);
  void confirmed(SessionId session, std::uint64_t bytes);

  // When the replica would be done with another microbatch, given now.
  Time finish(SessionId session, std::uint64_t bytes, Time now) const;
  // A message there and its answer.
  Duration round_trip(SessionId session) const { return replicas_.at(session).link.latency(); }
  // Of one microbatch, as far as that is known.
  Duration service(SessionId session) const { return service_of(replicas_.at(session)); }
  std::uint64_t bytes_in_flight() const { return bytes_in_flight_; }

 private:
  struct Replica {
    Time ready{};                   // when its device has worked off what it is known to have
    Duration service{};             // of one microbatch; zero: not known
    std::uint32_t unconfirmed = 0;  // charged, no receipt yet
    std::uint32_t given = 0;        // in this run; breaks ties while nothing is known
    LinkEstimate link;
  };
  Duration service_of(const Replica& replica) const;

  protocol::Routing routing_;
  ReplicaId self_;
  std::map<SessionId, Replica> replicas_;
  std::uint64_t bytes_in_flight_ = 0;
};

}  // namespace isthmus::router
