#pragma once

#include <array>
#include <deque>
#include <map>
#include <vector>

#include "base/counter_random.h"
#include "transport/transport.h"

namespace isthmus::transport {

// A home connection: one rate up and the same rate down, shared by all peers of the process; one-way latency on
// everything that is sent.
struct LinkShape {
  double bits_per_second = 80e6;
  Duration latency{};
  Duration jitter{};  // uniform in [0, jitter), added to the latency; frames of one peer and priority keep their order
  double loss = 0;    // share of frames that have to be sent once more, a round trip later, as TCP would
  std::uint64_t seed = 1;
};

// Makes any Transport behave as if it sat behind such a connection: a token bucket with strict priorities, then a
// delay line; on arrival the downlink's bucket. Every process shapes its own end. Pure but for the inner transport.
class ShapedTransport final : public Transport {
 public:
  ShapedTransport(Transport& inner, const LinkShape& shape);

  void send(Frame frame) override;
  std::vector<TransportEvent> poll(Time now) override;
  Time next_due() const override;
  std::uint64_t queued_bytes() const override;

  // Time a frame occupies the link, with what ZMTP, CURVE, TCP, IP and Ethernet add to its bytes.
  Duration transmit_time(const Frame& frame) const;

 private:
  struct Waiting {
    Frame frame;
    Time since;
  };
  void move_uplink(Time now);
  double uniform() { return static_cast<double>(random_.bits(drawn_++) >> 11) * 0x1.0p-53; }

  Transport& inner_;
  const LinkShape shape_;
  const CounterRandom random_;
  std::uint64_t drawn_ = 0;
  Time now_{};
  Time uplink_free_{};
  Time downlink_free_{};
  std::array<std::deque<Waiting>, 4> uplink_;  // by priority
  std::multimap<Time, Frame> delayed_;
  std::map<std::pair<PeerId, protocol::Priority>, Time> last_due_;
  std::multimap<Time, TransportEvent> downlink_;
  std::uint64_t queued_bytes_ = 0;
};

}  // namespace isthmus::transport
