#pragma once

#include <cstdint>

#include "base/ids.h"
#include "base/time.h"
#include "protocol/operation_costs.h"

namespace isthmus::protocol {

// What a worker's device is, measured once before the worker joins. Costs are of one microbatch; zero: its stage has no
// such part, or it costs nothing.
struct DeviceFigures {
  std::uint64_t memory_bytes = 0;  // available to the worker; 0: not known
  OperationCosts layer;            // one layer
  OperationCosts embedding;        // the table of the first stage
  OperationCosts head;             // norm, matrix and loss of the last one
  friend bool operator==(const DeviceFigures&, const DeviceFigures&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("memory_bytes", self.memory_bytes);
    visit.flat(self.layer);
    visit.flat(self.embedding);
    visit.flat(self.head);
  }
};

// The coordinator wants the receiver's link to another member measured. `number` counts orders; 0: nothing is wanted.
struct LinkOrder {
  std::uint32_t number = 0;
  SessionId to;
  friend bool operator==(const LinkOrder&, const LinkOrder&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit("number", self.number);
    visit("to", self.to);
  }
};

// What came of it. Rates are 0 if the other did not answer.
struct LinkFigures {
  LinkOrder order;
  Duration latency{};                   // one way: half of the shortest round trip
  double sent_bits_per_second = 0;      // payload, from the measuring worker to the other
  double received_bits_per_second = 0;  // … and back
  bool answered() const { return sent_bits_per_second > 0 && received_bits_per_second > 0; }
  friend bool operator==(const LinkFigures&, const LinkFigures&) = default;
  template <class Self>
  static void fields(Self& self, auto& visit) {
    visit.flat(self.order);
    visit("latency", self.latency);
    visit("sent_bits_per_second", self.sent_bits_per_second);
    visit("received_bits_per_second", self.received_bits_per_second);
  }
};

// A measurement takes so many messages of at most so many bytes each way, and the best of them counts: a connection
// that was idle needs the first ones to get up to speed (RFC 5681, slow start).
inline constexpr std::uint64_t kSoundingBytes = 256 * 1024;
inline constexpr std::uint32_t kSoundings = 3;

}  // namespace isthmus::protocol
