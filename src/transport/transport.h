#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/time.h"
#include "protocol/endpoints.h"
#include "protocol/priority.h"

namespace isthmus::transport {

// One ZeroMQ message: a head and, for bulk, a slice of a payload. At most kFrameBytesMax in all.
struct Frame {
  PeerId peer;  // receiver when sent, authenticated sender when received
  protocol::Priority priority = protocol::Priority::kControl;
  bool boundary = false;  // counts as boundary traffic
  Bytes head;             // header and msgpack body
  SharedBytes payload;    // the slice; null: none

  std::size_t bytes() const { return head.size() + payload->size(); }
};

inline constexpr std::size_t kChunkBytes = 64 * 1024;
inline constexpr std::size_t kFrameBytesMax = kChunkBytes + 64 * 1024;

struct FrameReceived {
  Frame frame;
};
// A connection to the peer was made (and authenticated) or lost. Nothing is promised about frames sent around then.
struct PeerConnected {
  PeerId peer;
  std::string address;  // from which it dialled, numeric, without a port; empty: it was dialled
};
struct PeerDisconnected {
  PeerId peer;
};
using TransportEvent = std::variant<FrameReceived, PeerConnected, PeerDisconnected>;

// Moves frames between peers. Best effort: a frame may be lost when a connection breaks, never torn or altered.
// Owned and called by one thread.
class Transport {
 public:
  virtual ~Transport() = default;
  // Queues the frame. Frames to one peer with one priority keep their order; a more urgent one may overtake.
  virtual void send(Frame frame) = 0;
  // Moves what can be moved at `now` and returns what happened.
  virtual std::vector<TransportEvent> poll(Time now) = 0;
  // When poll() has something to do even if nothing arrives; kNever: only arrivals.
  virtual Time next_due() const = 0;
  // Bytes accepted by send() that have not left yet.
  virtual std::uint64_t queued_bytes() const = 0;
};

}  // namespace isthmus::transport
