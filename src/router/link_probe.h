#pragma once

#include <cstdint>
#include <optional>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/measurements.h"
#include "protocol/message.h"
#include "router/connections.h"
#include "router/worker_context.h"

namespace isthmus::router {

// The worker's half of link measurements (scheduler/coordinator/link_survey.h has the coordinator's): carries out the
// order of the newest view, and answers what others send for theirs. A few small messages, whose shortest round trip is
// twice the latency; then a few large ones to the other and back, at the end of every queue. The fastest of them
// counts: the others waited for training. One message is on its way at a time, so what was lost is asked for again.
class LinkProbe {
 public:
  LinkProbe(WorkerContext& context, Connections& connections) : context_(context), connections_(connections) {}

  void view_changed(Time now);
  // False: refused, for it is not for this life or not from a member, or asks for more than there is to give.
  bool received(const protocol::Sounding& message, PeerId from, Time now);
  bool received(const protocol::Echo& message, PeerId from, Time now);
  void tick(Time now);
  Time next_due() const { return under_way_ ? under_way_->ask_again : kNever; }
  // What became of the last order.
  const protocol::LinkFigures& figures() const { return done_; }

 private:
  struct UnderWay {
    protocol::LinkOrder order;
    SessionId from;  // this life
    PeerId peer;     // the other's
    std::uint32_t round = 0;
    Time asked{};
    Time ask_again{};
    std::uint32_t missed = 0;
    // Shortest times until an answer came.
    std::optional<Duration> small, out, back;
  };
  const protocol::Member* partner(SessionId session) const;
  std::uint64_t bulk_bytes() const;
  void ask(Time now);
  void finish();

  WorkerContext& context_;
  Connections& connections_;
  std::uint32_t serial_ = 0;
  std::optional<UnderWay> under_way_;
  protocol::LinkFigures done_;
  // Bytes that this worker may still answer with.
  double allowance_ = protocol::kSoundings * protocol::kSoundingBytes;
  Time allowed_since_{};
};

}  // namespace isthmus::router
